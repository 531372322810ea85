"""What the modes of ``mar score`` share: plans and options as written, and the files in RUN/scores."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from mar.core.errors import UserError
from mar.core.files import environment, short, write_atomic
from mar.likelihood.summary import fingerprint
from mar.run import Run
from orderings import PlanSpec, parse_partition
from orderings import text as values
from orderings.partitions import Singles

_LONGEST = 120  # bytes of a plan in a file's name

# a setting and its default; others are part of a file's name, under this word where there is one
_DEFAULTS: dict[str, tuple[Any, str]] = {
    "guidance": (1.0, "guidance"),
    "guidance_schedule": ("linear", ""),
    "adaptive": ("", ""),
    "remask": ("", "remask"),
    "temperature": (1.0, "temperature"),
    "seed": (0, "seed"),
    "weights": ("ema", "weights"),
    "head": ({}, "head"),
    "estimator": ("exact", ""),
    "orders": (0, "orders"),
    "orders_per_image": (1, "orders-per-image"),
    "draws": (1, "draws"),
    "precision": ("fp32", ""),
    "past": (None, "past"),
    "likelihood": ({}, ""),
}


def product(plans: str, partitions: str, default: str) -> list[str]:
    """Canonical plans, each once: ``raster,spiral`` × ``singles,cosine:16``, or the plans alone.

    Raises:
        UserError: a plan with a partition of its own beside ``partitions``.
    """
    chosen = [PlanSpec.parse(text, adaptive=True) for text in _listed(plans) or [default]]
    cuts = [parse_partition(text) for text in _listed(partitions)]
    for ordering, partition in chosen:
        if cuts and plans and partition != Singles():
            raise UserError(
                f"{PlanSpec(ordering, partition)!s} has a partition of its own: with --partitions, --plans are orderings"
            )
    named = [str(PlanSpec(ordering, cut)) for ordering, partition in chosen for cut in cuts or [partition]]
    return list(dict.fromkeys(named))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in values.split(text, ",") if part.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """``"4,8,16"`` -> [4, 8, 16].

    Raises:
        UserError: it holds something else.
    """
    try:
        return [int(part) for part in _listed(text)]
    except ValueError:
        raise UserError(f"{option} is written 4,8,16, not {text!r}") from None


def options_of(texts: list[str], what: str) -> dict[str, Any]:
    """``["steps=25", "solver=ddim"]`` -> values.

    Raises:
        UserError: not written key=value.
    """
    for text in texts:
        if "=" not in text:
            raise UserError(f"a {what} option of the head is written key=value, not {text!r}")
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist(texts)))


def head_options(texts: list[str]) -> dict[str, Any]:
    """Sampling options of the head, as ``options_of``."""
    return options_of(texts, "sampling")


def scores_folder(run: Run) -> Path:
    """RUN/scores, made if need be, before time is spent on what goes there.

    Raises:
        UserError: nothing can be written to it.
    """
    folder = run.folder.path / "scores"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("no permission")
    except OSError as error:
        raise UserError(f"cannot write to {folder}, where scores go ({error}): score a copy of the run") from None
    return folder


def save(run: Run, metric: str, plan: str, content: dict[str, Any]) -> Path:
    """RUN/scores/METRIC-PLAN-SPLIT-N….json, settings that are no default in its name, with the data set's fingerprint
    (as in training, where it is not there), the iteration and the environment."""
    try:
        data = run.data
    except UserError:
        data = run.about
    record = {
        **content,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "iteration": run.checkpoint.iteration,
        "environment": environment(),
    }
    path = run.folder.path / "scores" / f"{metric}-{file_name(plan, content)}.json"
    write_atomic(path, json.dumps(record, indent=1))
    return path


def file_name(plan: str, content: dict[str, Any]) -> str:
    """PLAN-SPLIT-N and every setting that is no default."""
    keys = [plan_name(plan), str(content["split"]), f"n{content['n_images']}"]
    changed = {k: word for k, (default, word) in _DEFAULTS.items() if k in content and content[k] != default}
    keys += [f"{word}{_plain(content[key])}" for key, word in changed.items()]
    return "-".join([*keys, str(content["kind"])] if "kind" in content else keys)


def samples_name(plan: str, ways: dict[str, Any], seed: int) -> str:
    """PLAN, every way of generating that was asked for, SEED: what is generated otherwise lies in another folder."""
    told = [f"{key}{_plain(value)}" for key, value in ways.items() if value not in ("", None, 0)]
    name = "-".join([_plain(plan), *told])
    plain = re.sub(r"[^\w+.,=()~-]", "-", name)
    return "-".join([plan_name(plain), *([] if plain == name else [fingerprint({"name": name})[:8]]), f"seed{seed}"])


def plan_name(plan: str) -> str:
    """A plan as part of a file's name."""
    return short(_plain(plan), _LONGEST)


def _plain(value: Any) -> str:
    """A setting as part of a file's name."""
    text = "-".join(f"{k}{v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return text.replace("/", "-").replace(":", "")

"""Plans and options as written on the command line."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import OmegaConf

from mar.core.errors import UserError
from orderings import PlanSpec, parse_partition
from orderings import text as values
from orderings.partitions import Singles


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

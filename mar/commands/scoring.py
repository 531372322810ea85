"""What ``mar score`` does: likelihoods and FID of plans, into RUN/scores and a table in the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import OmegaConf
from rich.table import Table

from mar import build
from mar.ablation.compare import paired_differences
from mar.ablation.result import Difference
from mar.commands.progress import bar, wide_console
from mar.config import parse
from mar.data.base import Data
from mar.errors import UserError
from mar.evaluation.fid import score_images
from mar.likelihood.score import Likelihood
from mar.run import Run
from mar.training.run_folder import environment, write
from orderings import describe, parse_plan

Features = Literal["auto", "inception", "classifier"]


def score_nll(
    run: Run, plans: list[str], paired_with: str, split: str, n: int | None, kind: str | None, budget: int | None, seed: int,
    weights: str,
) -> None:  # fmt: skip
    """Likelihood along each plan, on the same images and noise; paired with one of them if wanted."""
    named = {describe(*parse_plan(plan)): plan for plan in ([paired_with] if paired_with else []) + plans}
    reference = next(iter(named)) if paired_with else None
    results: dict[str, Likelihood] = {}
    for plan in named:
        with bar(f"NLL {plan}") as progress:
            results[plan] = run.nll(
                plan=plan, split=split, limit=n, seed=seed, kind=kind, budget=budget, progress=progress
            )
    differences = paired_differences(results, reference) if reference else {}
    for plan, result in results.items():
        paired = {"paired": asdict(differences[plan])} if plan in differences else {}
        save(run, "nll", plan, {"split": split, "seed": seed, "weights": weights, **result.to_dict(), **paired})
    console = wide_console()
    console.print(_nll_table(run, split, weights, results, differences, reference))
    console.print("± is one standard error over images; kind says what the figure is (docs/likelihood.md)")
    for warning in {w for r in results.values() for w in r.warnings}:
        console.print(f"warning: {warning}")
    console.print(f"wrote {len(results)} JSON file(s) to {run.folder.path / 'scores'}")


def _nll_table(
    run: Run,
    split: str,
    weights: str,
    results: dict[str, Likelihood],
    differences: dict[str, Difference],
    reference: str | None,
) -> Table:
    table = Table(title=f"negative log-likelihood, {run.data.name} {split}, {weights} weights (lower is better)")
    columns = ["plan", "kind", "n", "nats/image", "bits/dim", "AR steps"]
    for column in columns + ([f"nats/image − {reference} [95 %]", "p (Holm)"] if reference else []):
        table.add_column(column, justify="left" if column in ("plan", "kind") else "right", no_wrap=column == "plan")
    for plan, r in results.items():
        bits = "—" if r.bits_per_dim is None else f"{r.bits_per_dim:.4f} ± {r.standard_error_bits_per_dim:.4f}"
        nats = f"{r.nats_per_image:.2f} ± {r.standard_error_nats:.2f}"
        cells = [r.plan, r.kind, str(r.n_images), nats, bits, str(r.steps)]
        if reference and plan in differences:
            d = differences[plan]
            cells += [
                f"{d.nats_per_image:+.2f} [{d.interval_nats[0]:+.2f}, {d.interval_nats[1]:+.2f}]",
                f"{d.p_holm:.2g}",
            ]
        table.add_row(*cells)
    return table


def score_fid(
    run: Run, plans: list[str], split: str, n: int, guidance: float, temperature: float,
    head: dict[str, Any], features: Features,
    inception_weights: Path | None, labelled: str, seed: int, batch_size: int, weights: str,
) -> None:  # fmt: skip
    """FID and the rest of samples along each plan, beside the noise floor of real images."""
    named = [describe(*parse_plan(plan)) for plan in plans]
    cache = run.folder.path / "scores" / "features"
    other = _labelled(labelled) if labelled else None
    table = Table(title=f"{n} samples against {run.data.name} {split}, {weights} weights")
    for column in ("plan", "FID ↓", "noise floor", "KID ↓", "IS ↑", "precision ↑", "recall ↑"):
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=column == "plan")
    result = None
    for plan in named:
        with bar(f"sampling {plan}") as progress:
            x = run.sample(
                n, plan, guidance=guidance, temperature=temperature, seed=seed, batch_size=batch_size,
                progress=progress, **head,
            )  # fmt: skip
        result = score_images(
            x, run.data, cache, extractor=features, weights=inception_weights, labelled=other, on=split, seed=seed,
            device=run.device,
        )  # fmt: skip
        sampling = {"guidance": guidance, "temperature": temperature, "head": head, "seed": seed}
        sampling |= {"weights": weights, "split": split}
        save(run, "fid", plan, {"plan": plan, "n_images": n, **sampling, **result.to_dict()})
        g, floor = result.generated, result.noise_floor
        table.add_row(
            plan, f"{g.fid:.3f}", f"{floor.fid:.3f}", f"{g.kid_mean:.4f} ± {g.kid_std:.4f}",
            f"{g.inception_score_mean:.2f} ± {g.inception_score_std:.2f}", f"{g.precision:.3f}", f"{g.recall:.3f}",
        )  # fmt: skip
    assert result is not None
    console = wide_console()
    console.print(table)
    console.print(
        f"features: {result.extractor}; {result.n_real} real images; KID subsets of {result.kid_subset_size}; "
        f"the noise floor is real {result.noise_floor_split} images scored alike (docs/evaluation.md)"
    )
    for note in result.notes:
        console.print(f"note: {note}")
    console.print(f"wrote {len(named)} JSON file(s) to {run.folder.path / 'scores'}")


def _plain(value: Any) -> str:
    """A setting as part of a file's name."""
    return "-".join(f"{k}{v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def head_options(texts: list[str]) -> dict[str, Any]:
    """``["steps=25", "solver=ddim"]`` -> values of the head's sampling options.

    Raises:
        UserError: not written key=value.
    """
    for text in texts:
        if "=" not in text:
            raise UserError(f"a sampling option of the head is written key=value, not {text!r}")
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist(texts)))


def _labelled(text: str) -> Data:
    """``kind:path`` -> the data set whose labels train the classifier."""
    kind, _, path = text.partition(":")
    options = {"path": str(Path(path).expanduser())} if path else {}
    return build.data(parse({"data": {"kind": kind, **options}}))


def save(run: Run, metric: str, plan: str, content: dict[str, Any]) -> Path:
    """RUN/scores/METRIC-PLAN-SPLIT-N….json, settings that are no default in its name, with the data set's fingerprint, the iteration and the environment."""
    record = {
        **content,
        "data": run.data.name,
        "data_fingerprint": run.data.fingerprint,
        "iteration": run.checkpoint.iteration,
        "environment": environment(),
    }
    keys = [plan.replace("/", "-").replace(":", ""), str(content["split"]), f"n{content['n_images']}"]
    defaults = {"guidance": 1.0, "temperature": 1.0, "seed": 0, "weights": "ema", "head": {}}
    keys += [f"{k}{_plain(content[k])}" for k, v in defaults.items() if k in content and content[k] != v]
    keys += [str(content["kind"])] if "kind" in content else []
    path = run.folder.path / "scores" / f"{metric}-{'-'.join(keys)}.json"
    write(path, json.dumps(record, indent=1))
    return path

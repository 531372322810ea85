"""What ``mar score`` does: likelihoods and FID of plans, into RUN/scores and a table in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mar.commands.progress import bar
from mar.likelihood.score import Likelihood
from mar.run import Run
from mar.training.run_folder import environment, write


def score_nll(
    run: Run, plans: list[str], split: str, n: int | None, kind: str | None, budget: int, seed: int, weights: str
) -> list[Likelihood]:
    """Likelihood along each plan, on the same images and noise."""
    results = []
    for plan in plans:
        with bar(f"NLL {plan}") as progress:
            result = run.nll(
                plan=plan, split=split, limit=n, seed=seed, kind=kind, budget=budget, progress=progress
            )
        save(run, "nll", plan, {"split": split, "seed": seed, "weights": weights, **result.to_dict()})
        results.append(result)
    table = Table(title=f"negative log-likelihood, {run.data.name} {split}, {weights} weights (lower is better)")
    for column in ("plan", "kind", "n", "nats/image", "bits/dim", "AR steps"):
        table.add_column(column, justify="left" if column in ("plan", "kind") else "right")
    for r in results:
        bits = "—" if r.bits_per_dim is None else f"{r.bits_per_dim:.4f} ± {r.standard_error_bits_per_dim:.4f}"
        nats = f"{r.nats_per_image:.2f} ± {r.standard_error_nats:.2f}"
        table.add_row(r.plan, r.kind, str(r.n_images), nats, bits, str(r.steps))
    console = Console()
    console.print(table)
    console.print("± is one standard error over images; kind says what the figure is (docs/likelihood.md)")
    for warning in {w for r in results for w in r.warnings}:
        console.print(f"warning: {warning}")
    console.print(f"wrote {len(results)} JSON file(s) to {run.folder.path / 'scores'}")
    return results


def save(run: Run, metric: str, plan: str, content: dict[str, Any]) -> Path:
    """RUN/scores/METRIC-PLAN.json, with the data set and its fingerprint, the weights' iteration and the environment."""
    record = {
        **content,
        "data": run.data.name,
        "data_fingerprint": run.data.fingerprint,
        "iteration": run.checkpoint.iteration,
        "environment": environment(),
    }
    keys = [plan.replace("/", "-").replace(":", ""), str(content.get("split", "")), f"n{content.get('n_images', '')}"]
    path = run.folder.path / "scores" / f"{metric}-{'-'.join(keys)}.json"
    write(path, json.dumps(record, indent=1))
    return path

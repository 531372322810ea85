"""``mar score RUN1 RUN2 … --matrix``: every run along every plan, in one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mar.ablation.matrix import named, score_matrix
from mar.commands.progress import bar, wide_console
from mar.likelihood.partial import Partial, fingerprint
from mar.likelihood.score import Likelihood
from mar.noise import stream
from mar.reports.matrix import terminal, write_matrix
from mar.run import Run, load


def score_runs(
    paths: Sequence[Path],
    plans: Sequence[str],
    split: str = "test",
    n: int | None = None,
    kind: str | None = None,
    budget: int | None = None,
    seed: int = 0,
    ema: bool = True,
    out: Path | None = None,
) -> None:
    """Score, print, and write ``matrix.json``, ``.csv``, ``.md`` and ``.png`` to ``out``.

    Interrupted, the same command goes on; with more runs or plans only the new cells are computed.

    Args:
        paths: run folders.
        plans: short texts; the runs' own training plans are always among the columns.
        n: the split's first so many images; None: all.
        budget: bytes of activations.
        out: default: the folder ``matrix`` beside the first run.

    Raises:
        UserError, Unsupported: the runs do not belong in one table; nothing was scored.
    """
    runs, folder = named([load(path, ema) for path in paths]), out or paths[0].resolve().parent / "matrix"
    asked = {"split": split, "limit": n, "seed": seed, "kind": kind}

    def score(name: str, run: Run, plan: str) -> Likelihood:
        kept = _kept(folder, run, {**asked, "plan": plan})
        with bar(f"{name} along {plan}") as progress:
            return run.nll(**asked, plan=plan, budget=budget, progress=progress, kept=kept)

    matrix = score_matrix(runs, plans, score, split, seed, kind)
    console = wide_console()
    console.print(*terminal(matrix), sep="\n")
    for path in write_matrix(matrix, folder):
        print(f"wrote {path}")


def _kept(folder: Path, run: Run, asked: dict[str, Any]) -> Partial:
    """What is done of one cell, under a fingerprint of everything that its value depends on."""
    weights = json.loads((run.checkpoint.path / "state.json").read_text())["sha256"]
    drawn = run.plans(asked["plan"]).scored(stream(0, "plan", 1)).step_BL[0].tolist()  # an order's file may change
    question = {**asked, "weights": weights, "ema": run.ema, "data": run.data.fingerprint, "drawn": drawn}
    return Partial(folder / "cells" / fingerprint(question))

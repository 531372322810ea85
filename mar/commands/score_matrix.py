"""``mar score RUN1 RUN2 … --matrix``: every run along every plan, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mar.ablation.matrix import named, score_matrix
from mar.commands.progress import bar, wide_console
from mar.likelihood.score import Likelihood
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

    Args:
        paths: run folders.
        plans: short texts; the runs' own training plans are always among the columns.
        n: the split's first so many images; None: all.
        budget: bytes of activations.
        out: default: the folder ``matrix`` beside the first run.

    Raises:
        UserError, Unsupported: the runs do not belong in one table; nothing was scored.
    """
    runs = named([load(path, ema) for path in paths])

    def score(name: str, run: Run, plan: str) -> Likelihood:
        with bar(f"{name} along {plan}") as progress:
            return run.nll(plan=plan, split=split, limit=n, seed=seed, kind=kind, budget=budget, progress=progress)

    matrix = score_matrix(runs, plans, score, split, seed, kind)
    console = wide_console()
    console.print(*terminal(matrix), sep="\n")
    for path in write_matrix(matrix, out or paths[0].resolve().parent / "matrix"):
        print(f"wrote {path}")

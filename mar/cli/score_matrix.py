"""``mar score RUN1 RUN2 … --matrix``: every run along every plan, in one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from mar.cli.score_nll import Request, score_plan
from mar.core.errors import UserError
from mar.core.progress import wide_console
from mar.experiments.matrix import named, score_matrix
from mar.likelihood.score import Likelihood
from mar.reports.matrix import terminal, write_matrix
from mar.run import Run, load


def score_runs(paths: Sequence[Path], request: Request, out: Path | None = None) -> None:
    """Score, print, and write ``matrix.json``, ``.csv``, ``.md`` and ``.png`` to ``out``.

    Every cell is also a record in its run's scores, as ``mar score --nll`` writes it, and taken from there when it was
    scored before: interrupted, the same command goes on, and with more runs or plans only the new cells are computed.

    Args:
        paths: run folders.
        request: its plans are the columns; the runs' own training plans are added.
        out: default: the folder ``matrix`` beside the first run.

    Raises:
        UserError, Unsupported: the runs or the request do not make one table; nothing was scored.
    """
    if request.target or request.paired_with:
        raise UserError(
            "a matrix scores every plan on the same images, each row paired with its run's own plan: leave out "
            "--target-se and --paired-with"
        )
    console = wide_console()

    def score(name: str, run: Run, plan: str) -> Likelihood:
        console.print(f"{name} along {plan}", highlight=False)
        return TypeAdapter(Likelihood).validate_python(json.loads(score_plan(run, plan, request, console).read_text()))

    runs = named([load(path, request.weights == "ema") for path in paths])
    matrix = score_matrix(runs, request.plans, score, request.split, request.seed, request.kind)
    console.print(*terminal(matrix), sep="\n")
    for path in write_matrix(matrix, out or paths[0].resolve().parent / "matrix"):
        print(f"wrote {path}")

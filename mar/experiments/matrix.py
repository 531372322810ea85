"""Train-order × eval-order: several runs, each scored along every plan, each row compared with its own training plan.

N images
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mar import build
from mar.core.files import environment, write_atomic
from mar.likelihood.summary import Likelihood
from mar.metrics.nll import check_comparable
from mar.metrics.statistics import Difference, holm, paired_differences
from mar.run import Run
from orderings import PlanSpec

Score = Callable[[str, Run, str], Likelihood]  # of a run, by its name, along a plan


@dataclass(frozen=True)
class Trained:
    """One run, a row of the matrix.

    Attributes:
        name: the run folder's name, or its path where names repeat.
        plan: the plan that it was trained along, the row's diagonal.
        mask_ratio: kind of the training task.
        iterations: of the weights that were scored.
        recipe: fingerprint of the recipe.
        notes: warnings about the row.
    """

    name: str
    plan: str
    mask_ratio: str
    iterations: int
    recipe: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One run along one plan. ``difference`` is to the same run along its own plan; None there."""

    run: str
    plan: str
    likelihood: Likelihood
    difference: Difference | None = None


@dataclass(frozen=True)
class Matrix:
    """Every run along every plan: same images, orders and noise.

    Attributes:
        runs: the rows.
        plans: the columns, canonical short texts.
        cells: row by row, in the order of ``plans``.
        data, data_fingerprint, split: the scored data.
        seed: of orders, dequantisation and the noise of bounds.
        weights: "ema" or "last".
        confidence: of the intervals of the differences.
        seconds: wall-clock time of scoring.
    """

    runs: tuple[Trained, ...]
    plans: tuple[str, ...]
    cells: tuple[Cell, ...]
    data: str
    data_fingerprint: str
    split: str
    seed: int
    weights: str
    confidence: float
    seconds: float
    environment: dict[str, Any]

    def row(self, name: str) -> list[Cell]:
        """Return the cells of one run, in the order of ``plans``."""
        return [cell for cell in self.cells if cell.run == name]

    def save(self, path: Path) -> None:
        """Write JSON aside and rename it."""
        write_atomic(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Matrix:
        """Load the matrix that ``save`` wrote."""
        return TypeAdapter(cls).validate_python(json.loads(path.read_text()))


def columns(runs: Mapping[str, Run], plans: Sequence[str]) -> tuple[str, ...]:
    """Return the plans in canonical text, then the training plans of ``runs`` that are missing among them."""
    wanted = [str(PlanSpec.parse(plan, adaptive=True)) for plan in plans]
    return tuple(dict.fromkeys([*wanted, *(run.training_plan for run in runs.values())]))


def score_matrix(
    runs: Mapping[str, Run],
    plans: Sequence[str],
    score: Score,
    split: str = "test",
    seed: int = 0,
    kind: str | None = None,
    confidence: float = 0.95,
) -> Matrix:
    """Score every run along every plan.

    Args:
        runs: by the names that the table shows.
        plans: short texts; training plans of the runs that are not among them are added.
        score: gives each cell, always on the same images and noise.
        split, seed, kind: the scored data, for the record and the checks.
        confidence: of the intervals of the differences.

    Raises:
        UserError, Unsupported: see ``check``; nothing was scored.
    """
    check_comparable(runs, kind)
    chosen, started = columns(runs, plans), time.monotonic()
    cells = [cell for name, run in runs.items() for cell in _row(name, run, chosen, score, confidence)]
    base = next(iter(runs.values()))
    return Matrix(
        runs=tuple(_trained(name, run, cells) for name, run in runs.items()),
        plans=chosen,
        cells=tuple(_corrected(cells)),
        data=base.data.name,
        data_fingerprint=base.data.fingerprint,
        split=split,
        seed=seed,
        weights="ema" if base.ema else "last",
        confidence=confidence,
        seconds=time.monotonic() - started,
        environment=environment(),
    )


def _row(name: str, run: Run, plans: Sequence[str], score: Score, confidence: float) -> list[Cell]:
    likelihoods = {plan: score(name, run, plan) for plan in plans}
    differences = paired_differences(likelihoods, run.training_plan, confidence)
    return [Cell(name, plan, likelihood, differences.get(plan)) for plan, likelihood in likelihoods.items()]


def _corrected(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with Holm's correction over every comparison of the table."""
    compared = [cell for cell in cells if cell.difference is not None]
    adjusted = iter(holm([cell.difference.p_value for cell in compared if cell.difference is not None]))
    return [
        cell if cell.difference is None else replace(cell, difference=replace(cell.difference, p_holm=next(adjusted)))
        for cell in cells
    ]


def _trained(name: str, run: Run, cells: Sequence[Cell]) -> Trained:
    recipe, plan = run.recipe, run.training_plan
    kind = recipe.train.objective.kind
    notes = list(next(cell.likelihood.warnings for cell in cells if (cell.run, cell.plan) == (name, plan)))
    if not build.objective(recipe).estimates_nll(build.ordering(recipe)):
        notes.append(
            f"its training loss (objective {kind}) is no NLL of {plan}: a fixed order is trained with "
            "train.objective=next_set"
        )
    return Trained(name, plan, kind, run.checkpoint.iteration, recipe.fingerprint(), tuple(notes))

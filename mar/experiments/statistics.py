"""Statistics over the rows of a result: over seeds, of what the cells have in common, and against published columns.

A test over images speaks of trained models; a test over seeds speaks of recipes, and needs several of each. Figures of
papers are of other data and another scale: only the order of the rows is compared (Kendall's rank correlation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mar.experiments.grid import OURS, PLAN, SEED, Of, Published
from mar.experiments.result import AblationResult, Row, TrainedModel, generation_rates
from mar.metrics.statistics import holm, p_value


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of one seed, n - 1 in the denominator) over ``n`` seeds."""

    n: int
    mean: float
    deviation: float


@dataclass(frozen=True)
class SeedRow:
    """Rows that differ in their seed alone. A figure is None unless every seed has it.

    Attributes:
        settings: values on the other axes.
        plan: canonical short text.
        nll: bits/dim, or nats per image where there are no bits/dim.
        difference: to the reference of the same seed, in the same unit.
        p_holm: two-sided paired t-test over seeds that the mean difference is zero, Holm-corrected over this table.
        fid, images_per_second, probe: likewise.
    """

    settings: dict[str, str]
    plan: str
    nll: Spread | None
    difference: Spread | None
    p_holm: float | None
    fid: Spread | None
    images_per_second: Spread | None
    probe: Spread | None


def over_seeds(result: AblationResult) -> tuple[SeedRow, ...]:
    """Return every row over its seeds; nothing without an axis of at least two seeds."""
    groups = [rows for rows in by_seed(result.rows) if SEED in rows[0].settings]
    if max(map(len, groups), default=0) < 2:
        return ()
    found = [_over(rows) for rows in groups]
    tested = [k for k, row in enumerate(found) if row.p_holm is not None]
    for k, adjusted in zip(tested, holm([found[k].p_holm or 0.0 for k in tested]), strict=True):
        found[k] = replace(found[k], p_holm=adjusted)
    return tuple(found)


def by_seed(rows: Sequence[Row]) -> list[list[Row]]:
    """Group the rows that differ in their seed alone."""
    groups: dict[tuple[str, frozenset[tuple[str, str]]], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.plan, frozenset(settings_without_seed(row).items())), []).append(row)
    return list(groups.values())


def settings_without_seed(row: Row) -> dict[str, str]:
    """Return the settings without the seed."""
    return {axis: name for axis, name in row.settings.items() if axis != SEED}


def _over(rows: Sequence[Row]) -> SeedRow:
    """Return one row of the table, its p-value not corrected yet."""
    differences = values_of(rows, _difference)
    return SeedRow(
        settings=settings_without_seed(rows[0]),
        plan=rows[0].plan,
        nll=_spread(values_of(rows, nll_of)),
        difference=_spread(differences),
        p_holm=p_value(np.asarray(differences)) if len(differences) > 1 else None,
        fid=_spread(values_of(rows, lambda row: row.images and row.images.fid)),
        images_per_second=_spread(values_of(rows, lambda row: row.images_per_second)),
        probe=_spread(values_of(rows, lambda row: row.probe and row.probe.accuracy)),
    )


def nll_of(row: Row) -> float | None:
    """Return bits/dim, or nats per image where there are no bits/dim."""
    likelihood = row.likelihood
    if likelihood is None:
        return None
    return likelihood.nats_per_image if likelihood.bits_per_dim is None else likelihood.bits_per_dim


def _difference(row: Row) -> float | None:
    difference = row.difference
    if difference is None:
        return None
    return difference.nats_per_image if difference.bits_per_dim is None else difference.bits_per_dim


def values_of(rows: Sequence[Row], value: Callable[[Row], float | None]) -> list[float]:
    """Return a figure of every row; empty if one row lacks it."""
    found = [value(row) for row in rows]
    return [] if None in found else [each for each in found if each is not None]


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0
    return Spread(len(values), mean, deviation)


FAIR = 0.1  # of the smallest: a wider spread of the matched quantity is warned of
QUANTITIES = {"parameters": "parameters", "images": "examples seen", "compute": "training FLOP"}


@dataclass(frozen=True)
class Range:
    """The range of a quantity over trained cells."""

    low: float
    high: float

    @property
    def excess(self) -> float:
        """(high - low) / low."""
        return (self.high - self.low) / self.low


def spreads(result: AblationResult) -> dict[str, Range]:
    """Return the range of each of ``QUANTITIES`` over the trained cells, where every cell has it.

    Compute is known where the speed of every cell was measured.
    """
    trained = [model for model in result.models if model.training is not None]
    found = {}
    for name in QUANTITIES:
        values = [quantity(model, name) for model in trained]
        numbers = [value for value in values if value]
        if numbers and len(numbers) == len(values):
            found[name] = Range(min(numbers), max(numbers))
    return found


def quantity(model: TrainedModel, name: str) -> float | None:
    """Return one of ``QUANTITIES`` of a trained cell; None: unknown."""
    if name == "parameters":
        return model.parameters
    if model.training is None:
        return None
    images = model.training.iterations * model.training.batch_size
    if name == "images":
        return images
    return None if model.speed is None else images * model.speed.train_flops_per_image


def unfair(result: AblationResult) -> bool:
    """True if the quantity that the grid declares matched spreads by more than ``FAIR``."""
    spread = spreads(result).get(result.grid.get("matched") or "")
    return spread is not None and spread.excess > FAIR


FEWEST = 3  # rows: two are in the same order by chance half the time


@dataclass(frozen=True)
class Agreement:
    """How alike our column and a published one rank the rows that have both figures.

    Attributes:
        n: such rows; those that differ in their seed alone are one, of the mean over seeds.
        tau: Kendall's τ-b (1945); 1: the same order of quality, -1: the reverse. None: too few rows, or one column's
            figures are all equal.
        p_value: two-sided, of "no association".
        exact: over all permutations; with ties, the normal approximation.
    """

    n: int
    tau: float | None = None
    p_value: float | None = None
    exact: bool = False


def published_figure(column: Published, row: Row | SeedRow) -> float | None:
    """Return the paper's figure of a row; None where it has none."""
    return column.figure({PLAN: row.plan, **row.settings})


def agreement(result: AblationResult, column: Published) -> Agreement:
    """Return the agreement of our column with a published one."""
    ours, theirs = [], []
    figure = _figures(result)[column.of]
    for rows in by_seed(result.rows):
        values = values_of(rows, figure)
        published = column.figure({PLAN: rows[0].plan, **settings_without_seed(rows[0])})
        if values and published is not None:
            ours.append(math.fsum(values) / len(values))
            theirs.append(published)
    if len(ours) < FEWEST or min(len(set(ours)), len(set(theirs))) == 1:
        return Agreement(len(ours))
    turned = -1.0 if column.direction != OURS[column.of][1] else 1.0
    from scipy import stats

    found: Any = stats.kendalltau(ours, [turned * value for value in theirs])
    exact = len(set(ours)) == len(set(theirs)) == len(ours)
    return Agreement(len(ours), float(found.statistic), float(found.pvalue), exact)


def _figures(result: AblationResult) -> dict[Of, Callable[[Row], float | None]]:
    """Return for each of our columns the figure of a row."""
    rates = {id(row): rate for row, rate in zip(result.rows, generation_rates(result), strict=True)}
    return {
        "nll": nll_of,
        "fid": lambda row: row.images and row.images.fid,
        "inception_score": lambda row: row.images and row.images.generated.inception_score_mean,
        "probe": lambda row: row.probe and row.probe.accuracy,
        "images_per_second": lambda row: rates[id(row)],
    }

"""Whether a grid's rows stand in the same order as a paper's: Kendall's rank correlation.

The figures themselves are never compared: they are of other data and another scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scipy import stats

from mar.ablation.axes import PLAN
from mar.ablation.published import OURS, Of, Published
from mar.ablation.result import AblationResult, Row
from mar.ablation.seeds import SeedRow, by_seed, nll_of, unseeded, values_of

FEWEST = 3  # rows: the order of two is a coin's


@dataclass(frozen=True)
class Agreement:
    """How alike our column and a published one order the rows that have both figures.

    Attributes:
        n: such rows; those that differ in their seed alone are one, of the mean over seeds.
        tau: Kendall's τ-b (1945); 1: the same order of quality, -1: the reverse. None: too few rows, or one column's
            figures are all equal.
        p_value: two-sided, of "no association".
        exact: it counts permutations; otherwise, with ties, the normal approximation.
    """

    n: int
    tau: float | None = None
    p_value: float | None = None
    exact: bool = False


def published_figure(column: Published, row: Row | SeedRow) -> float | None:
    """What the paper says about a row of the table; None where it says nothing."""
    return column.figure({PLAN: row.plan, **row.settings})


def agreement(result: AblationResult, column: Published) -> Agreement:
    """Of our column of the same kind with a published one."""
    ours, theirs = [], []
    figure = _figures(result)[column.of]
    for rows in by_seed(result.rows):
        values = values_of(rows, figure)
        published = column.figure({PLAN: rows[0].plan, **unseeded(rows[0])})
        if values and published is not None:
            ours.append(math.fsum(values) / len(values))
            theirs.append(published)
    if len(ours) < FEWEST or min(len(set(ours)), len(set(theirs))) == 1:
        return Agreement(len(ours))
    turned = -1.0 if column.direction != OURS[column.of][1] else 1.0
    exact = len(ours) == len(set(ours)) == len(set(theirs))
    found: Any = stats.kendalltau(ours, [turned * value for value in theirs], method="exact" if exact else "asymptotic")
    return Agreement(len(ours), float(found.statistic), float(found.pvalue), exact)


def _figures(result: AblationResult) -> dict[Of, Callable[[Row], float | None]]:
    """Of each of our columns, the figure of a row."""
    models = {model.name: model for model in result.models}

    def images_per_second(row: Row) -> float | None:
        model = models.get(row.model)
        measured = model.speed if model is not None else None
        return row.images_per_second if measured is None else measured.sample_images_per_second

    return {
        "nll": nll_of,
        "fid": lambda row: row.images and row.images.fid,
        "inception_score": lambda row: row.images and row.images.generated.inception_score_mean,
        "probe": lambda row: row.probe and row.probe.accuracy,
        "images_per_second": images_per_second,
    }

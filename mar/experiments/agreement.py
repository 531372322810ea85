"""Whether a grid's rows stand in the same order as a paper's: Kendall's rank correlation.

The figures themselves are never compared: they are of other data and another scale.

N rows · P their permutations
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from scipy import stats

from mar.experiments.axes import PLAN
from mar.experiments.published import OURS, Of, Published
from mar.experiments.rates import generation_rates
from mar.experiments.result import AblationResult, Row
from mar.experiments.seeds import SeedRow, by_seed, nll_of, unseeded, values_of

FEWEST = 3  # rows: the order of two is a coin's
_COUNTED = 8  # rows, at most, of which every permutation is counted where figures tie


@dataclass(frozen=True)
class Agreement:
    """How alike our column and a published one order the rows that have both figures.

    Attributes:
        n: such rows; those that differ in their seed alone are one, of the mean over seeds.
        tau: Kendall's τ-b (1945); 1: the same order of quality, -1: the reverse. None: too few rows, or one column's
            figures are all equal.
        p_value: two-sided, of "no association".
        exact: it counts permutations; otherwise, with ties among many rows, the normal approximation.
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
    return _kendall(ours, [turned * value for value in theirs])


def _kendall(x_N: Sequence[float], y_N: Sequence[float]) -> Agreement:
    """Neither all equal."""
    n, tie = len(x_N), len(set(x_N)) < len(x_N) or len(set(y_N)) < len(y_N)
    found: Any = stats.kendalltau(x_N, y_N, method="asymptotic" if tie else "exact")
    p = _permutation_p(np.array(x_N), np.array(y_N)) if tie and n <= _COUNTED else float(found.pvalue)
    return Agreement(n, float(found.statistic), p, exact=not tie or n <= _COUNTED)


def _permutation_p(x_N: np.ndarray, y_N: np.ndarray) -> float:
    """The share of the orders of y that agree or disagree with x at least as much. τ-b's denominator is that of all."""
    first, second = np.triu_indices(len(x_N), 1)
    sign_NN = np.sign(y_N[:, None] - y_N[None, :])
    order_PN = np.array(list(permutations(range(len(y_N)))))  # the given one is the first
    score_P = (sign_NN[order_PN[:, first], order_PN[:, second]] * np.sign(x_N[first] - x_N[second])).sum(axis=1)
    return float(np.mean(np.abs(score_P) >= abs(score_P[0])))


def _figures(result: AblationResult) -> dict[Of, Callable[[Row], float | None]]:
    """Of each of our columns, the figure of a row."""
    rates = {id(row): rate for row, rate in zip(result.rows, generation_rates(result), strict=True)}
    return {
        "nll": nll_of,
        "fid": lambda row: row.images and row.images.fid,
        "inception_score": lambda row: row.images and row.images.generated.inception_score_mean,
        "probe": lambda row: row.probe and row.probe.accuracy,
        "images_per_second": lambda row: rates[id(row)],
    }

"""How much a score moves with the generation's seed, and what a difference between two settings is worth.

R seeds
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Figures of R independent repetitions.

    Attributes:
        values: one for each.
        mean: of them.
        sd: their standard deviation (denominator R - 1); None for one.
        interval: Student's 95 % confidence interval of the mean; None for one.
    """

    values: tuple[float, ...]
    mean: float
    sd: float | None
    interval: tuple[float, float] | None


def spread(values: Sequence[float]) -> Spread:
    """Mean, spread and interval of repetitions that differ in their seed alone."""
    from scipy.stats import t

    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Spread(tuple(values), mean, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return Spread(tuple(values), mean, sd, (mean - half, mean + half))


def relative_change(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """value / reference - 1, paired over seeds: what two settings share of a seed's luck cancels."""
    return spread([value / base - 1.0 for value, base in zip(values, reference, strict=True)])

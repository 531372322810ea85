"""Chi-square agreement of counts with probabilities.

V categories
"""

from __future__ import annotations

import numpy as np
from scipy import stats

ALPHA = 1e-6  # level of every test of a verification, whose seeds are fixed


def p_value(count_V: np.ndarray, probability_V: np.ndarray, fewest: float = 5.0) -> float:
    """Of Pearson's chi-square test; cells that expect fewer than ``fewest`` are pooled.

    A count where the probability is zero gives 0, and so do probabilities that are no distribution.
    """
    count_V, expected_V = count_V.astype(np.float64), probability_V.astype(np.float64) * count_V.sum()
    if not np.isclose(probability_V.sum(), 1.0, atol=1e-3) or (count_V[expected_V == 0] > 0).any():
        return 0.0
    small_V = expected_V < fewest
    observed = np.append(count_V[~small_V], count_V[small_V].sum())
    expected = np.append(expected_V[~small_V], expected_V[small_V].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    if len(expected) < 2:
        return 1.0
    return float(stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)

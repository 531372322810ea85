"""Verdicts of contract tests, and the chi-square test that they share.

V categories
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec

import numpy as np
from scipy import stats

ALPHA = 1e-6  # level of every test of a verification, whose seeds are fixed


def p_value(count_V: np.ndarray, probability_V: np.ndarray, fewest: float = 5.0) -> float:
    """Return the p-value of Pearson's chi-square test; cells with fewer than ``fewest`` expected counts are pooled.

    A count in a cell of probability zero gives 0, and so do probabilities that do not sum to one.
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


P = ParamSpec("P")


@dataclass(frozen=True)
class Verdict:
    """The result of a claim about a subject; ``detail`` names the inputs, or the failure."""

    claim: str
    subject: str
    passed: bool
    detail: str


class Broken(Exception):
    """Raised by a check when its claim does not hold; the message says where."""


def require(holds: bool, otherwise: str) -> None:
    """Raise Broken(otherwise) unless ``holds``."""
    if not holds:
        raise Broken(otherwise)


@dataclass(frozen=True)
class Claim(Generic[P]):
    """A check with its claim in words, called as ``claim(subject, *arguments of the check)``."""

    text: str
    check: Callable[P, str]

    def __call__(self, subject: str, *args: P.args, **kwargs: P.kwargs) -> Verdict:
        try:
            return Verdict(self.text, subject, True, self.check(*args, **kwargs))
        except Broken as broken:
            return Verdict(self.text, subject, False, str(broken))
        except Exception as error:  # a component that raises breaks its contract
            lines = str(error).splitlines() or [""]
            return Verdict(self.text, subject, False, f"raised {type(error).__name__}: {lines[0]}")


def claim(text: str) -> Callable[[Callable[P, str]], Claim[P]]:
    """Turn a check into a claim. The check returns a description of its inputs, or raises Broken."""
    return lambda check: Claim(text, check)

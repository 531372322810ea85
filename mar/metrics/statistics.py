"""Statistics of tables: paired differences with an interval, Holm's correction, the spread over seeds.

N images · R seeds
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mar.core.errors import UserError
from mar.core.noise import derived_seed
from mar.likelihood.summary import Likelihood

_RESAMPLES = 9999


@dataclass(frozen=True)
class Difference:
    """A plan's mean NLL minus the reference plan's, on the same images and noise."""

    reference: str  #: the plan subtracted
    n_images: int  #: pairs
    nats_per_image: float  #: mean difference; negative: better than the reference
    interval_nats: tuple[float, float]  #: bootstrap interval of that mean over images
    bits_per_dim: float | None  #: the same per dimension of the data; None for latents
    interval_bits_per_dim: tuple[float, float] | None
    confidence: float  #: of the intervals
    p_value: float  #: two-sided paired t-test of "no difference"
    p_holm: float  #: the same, corrected for all comparisons of the table (Holm 1979)


def paired_differences(
    likelihoods: Mapping[str, Likelihood], reference: str, confidence: float = 0.95, seed: int = 0
) -> dict[str, Difference]:
    """Compare every plan with ``reference``, which the result leaves out.

    The interval covers resampling of test images for this trained model; it does not include training variance.

    Raises:
        UserError: the plans were not scored on the same images with the same kind of likelihood.
    """
    base, found = likelihoods[reference], {}
    # bits/dim and nats per image of one likelihood differ by a factor only
    factor = None if base.bits_per_dim is None else base.bits_per_dim / base.nats_per_image
    for plan, other in likelihoods.items():
        if plan == reference:
            continue
        if not comparable(other, base):
            ours, theirs = (f"({kind_of(r)}, {r.n_images} images)" for r in (other, base))
            raise UserError(
                f"{plan} {ours} and {reference} {theirs} cannot be paired: "
                "score both on the same images with one kind of likelihood"
            )
        difference_N = np.subtract(other.nats_of_image, base.nats_of_image)
        (low, high), mean = interval(difference_N, confidence, seed), float(difference_N.mean())
        bits = None if factor is None else mean * factor
        bits_interval = None if factor is None else (low * factor, high * factor)
        p = p_value(difference_N)
        found[plan] = Difference(
            reference, len(difference_N), mean, (low, high), bits, bits_interval, confidence, p, p_holm=p
        )
    adjusted = holm([difference.p_value for difference in found.values()])
    return {plan: replace(d, p_holm=p) for (plan, d), p in zip(found.items(), adjusted, strict=True)}


def comparable(one: Likelihood | None, other: Likelihood | None) -> bool:
    """True if two likelihoods can be paired: the same images, a figure of each image, one kind."""
    if one is None or other is None or not one.nats_of_image:
        return False
    return (len(one.nats_of_image), kind_of(one)) == (len(other.nats_of_image), kind_of(other))


def interval(difference_N: np.ndarray, confidence: float, seed: int) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval of the mean (Efron 1987)."""
    if np.ptp(difference_N) == 0.0:
        return float(difference_N[0]), float(difference_N[0])
    from scipy import stats

    bootstrap: Any = stats.bootstrap  # its last option is called rng from scipy 1.15 on; both take this name
    result = bootstrap(
        (difference_N,), np.mean, n_resamples=_RESAMPLES, confidence_level=confidence, method="BCa", batch=1000,
        random_state=np.random.default_rng(derived_seed(seed, "bootstrap")),
    )  # fmt: skip
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def p_value(difference_N: np.ndarray) -> float:
    """Return p of the two-sided paired t-test that the mean difference is zero."""
    if np.ptp(difference_N) == 0.0:
        return float(difference_N[0] == 0.0)
    from scipy import stats

    result: Any = stats.ttest_1samp(difference_N, 0.0)
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's step-down correction (1979): reject where the result is at most α, with family-wise error at most α.

    The k-th smallest of m is multiplied by m - k + 1; results never fall below those of smaller p-values.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def kind_of(likelihood: Likelihood) -> str:
    """Return the kind of the figure, or of the figure that it estimates without bias."""
    return likelihood.head_kind or likelihood.kind


@dataclass(frozen=True)
class Spread:
    """Figures of R independent repetitions."""

    values: tuple[float, ...]
    mean: float
    sd: float | None  # their standard deviation (denominator R - 1); None for one
    interval: tuple[float, float] | None  # Student's 95 % confidence interval of the mean; None for one


def spread(values: Sequence[float]) -> Spread:
    """Return mean, spread and interval of repetitions that differ in their seed alone."""
    from scipy.stats import t

    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Spread(tuple(values), mean, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return Spread(tuple(values), mean, sd, (mean - half, mean + half))


def relative_change(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Return value / reference - 1, paired over seeds, so that the effect of a seed on both settings cancels."""
    return spread([value / base - 1.0 for value, base in zip(values, reference, strict=True)])

"""Paired differences against closed forms; Holm's correction against a hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mar.core.errors import UserError
from mar.likelihood.summary import Likelihood
from mar.metrics.statistics import holm, interval, p_value, paired_differences


def likelihood(nats_of_image: np.ndarray, kind: str = "exact") -> Likelihood:
    mean = float(nats_of_image.mean())
    bits = mean / (64 * math.log(2.0))
    n = len(nats_of_image)
    return Likelihood(
        "a plan", kind, n, mean, 1.0, bits, 0.01, 64, 1, 64.0, (), (mean,), (64.0,), (mean / 64,) * 64,
        tuple(nats_of_image.tolist()),
    )  # fmt: skip


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    base = np.random.RandomState(0).gamma(3.0, 20.0, 50)
    found = paired_differences({"a": likelihood(base), "b": likelihood(np.round(base) + 2.0)}, "a")
    assert set(found) == {"b"}
    exact = paired_differences({"a": likelihood(np.round(base)), "b": likelihood(np.round(base) + 2.0)}, "a")["b"]
    assert exact.nats_per_image == 2.0 and exact.interval_nats == (2.0, 2.0) and exact.p_value == 0.0
    assert exact.bits_per_dim == pytest.approx(2.0 / (64 * math.log(2.0)), rel=1e-12)
    same = paired_differences({"a": likelihood(base), "b": likelihood(base)}, "a")["b"]
    assert same.nats_per_image == 0.0 and same.p_value == 1.0 and same.p_holm == 1.0


def test_pairing_removes_what_the_images_share() -> None:
    """Images differ by 100 nats, the plans by 1 ± 0.5: unpaired this drowns, paired it is seen sharply."""
    random = np.random.RandomState(1)
    base = random.normal(130.0, 100.0, 400)
    gap = random.normal(1.0, 0.5, 400)
    found = paired_differences({"a": likelihood(base), "b": likelihood(base + gap)}, "a")["b"]
    assert found.nats_per_image == pytest.approx(gap.mean(), abs=1e-9)
    half = 1.96 * gap.std(ddof=1) / math.sqrt(400)  # the normal interval, which the bootstrap's tends to
    assert found.interval_nats[0] == pytest.approx(gap.mean() - half, abs=0.12 * half)
    assert found.interval_nats[1] == pytest.approx(gap.mean() + half, abs=0.12 * half)
    t = gap.mean() / (gap.std(ddof=1) / math.sqrt(400))
    assert found.p_value == pytest.approx(2 * stats.t.sf(t, 399), rel=1e-6)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.RandomState(2)
    hits = 0
    for trial in range(100):
        low, high = interval(random.exponential(1.0, 80) - 1.0, 0.8, trial)
        hits += low <= 0.0 <= high
    assert 66 <= hits <= 92  # 80 ± 3.5 standard deviations


def test_the_interval_is_a_function_of_data_and_seed() -> None:
    difference_N = np.random.RandomState(3).normal(size=30)
    assert interval(difference_N, 0.95, 0) == interval(difference_N, 0.95, 0) != interval(difference_N, 0.95, 1)


def test_holm_agrees_with_a_hand_computation() -> None:
    # sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, made monotone: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == [] and holm([0.2]) == [0.2]


def test_p_values_are_uniform_without_a_difference() -> None:
    random = np.random.RandomState(4)
    p_values = [p_value(random.normal(size=40)) for _ in range(300)]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_what_cannot_be_paired_is_refused() -> None:
    base = np.arange(1.0, 9.0)
    with pytest.raises(UserError, match="cannot be paired"):
        paired_differences({"a": likelihood(base), "b": likelihood(base[:-1])}, "a")
    with pytest.raises(UserError, match="cannot be paired"):
        paired_differences({"a": likelihood(base), "b": likelihood(base, "bound")}, "a")

from __future__ import annotations

import pytest
from scipy import stats

from mar.metrics.statistics import relative_change, spread


def test_the_interval_is_students():
    values = [2.0, 2.5, 1.0, 4.0, 3.0]
    found = spread(values)
    low, high = stats.t.interval(0.95, 4, loc=found.mean, scale=stats.sem(values))
    assert found.mean == pytest.approx(2.5) and found.sd == pytest.approx(stats.tstd(values))
    assert found.interval == pytest.approx((low, high))


def test_one_repetition_has_no_interval():
    assert (spread([2.0]).sd, spread([2.0]).interval) == (None, None)


def test_what_seeds_share_cancels_in_a_relative_change():
    luck = [1.0, 10.0, 100.0]
    found = relative_change([1.03 * value for value in luck], luck)
    assert found.mean == pytest.approx(0.03) and found.interval == pytest.approx((0.03, 0.03))

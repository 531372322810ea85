"""What a validation curve says of its training, and how it looks in a line of text."""

from __future__ import annotations

import pytest

from mar.experiments.result import PLATEAU, Verdict, sparkline, verdict

STEPS = (10, 20, 30, 40, 50, 60, 70, 80)


@pytest.mark.parametrize(
    ("nats", "expected"),
    [
        ((3.0, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4), "falling"),
        ((3.0, 2.0, 1.5, 1.4, 1.4, 1.4, 1.4, 1.4 - PLATEAU / 2), "flat"),
        ((3.0, 2.0, 1.5, 1.4, 1.5, 1.6, 1.7, 1.8), "overfits"),
        ((3.0, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.6), "overfits"),
        ((3.0, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.5 + PLATEAU / 2), "falling"),
    ],
)
def test_a_curve_is_called_by_its_end(nats: tuple[float, ...], expected: Verdict) -> None:
    assert verdict(STEPS, nats) == expected


def test_a_curve_that_rose_at_its_end_no_longer_falls() -> None:
    steps, fell = tuple(range(10, 410, 10)), (*[2.0] * 30, *[1.5] * 5)  # forty validations, the last two are the end
    assert verdict(steps, (*fell, 1.49, 1.491, 1.492, 1.493, 1.494)) == "flat"
    assert verdict(steps, (*fell, 1.491, 1.492, 1.493, 1.49, 1.494)) == "falling"


def test_one_value_says_nothing() -> None:
    assert verdict((10,), (1.0,)) == "unknown" and verdict((), ()) == "unknown"


def test_a_line_has_a_bar_for_each_value_and_shows_where_it_is_lowest() -> None:
    line = sparkline((3.0, 2.0, 1.4, 1.5, 1.6))
    assert len(line) == 5 and line.index("▁") == 2 and line[0] == "█"
    assert len(sparkline(tuple(range(100)))) == 12 and sparkline(()) == ""
    assert set(sparkline((1.0, 1.0, 1.0))) == {"▁"}

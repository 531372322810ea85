"""The curve of NLL against steps: one token at a time ends the line of every schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mar.experiments.result import AblationResult
from mar.reports.lines import Line
from mar.reports.steps_curve import budgets, write_steps_curve
from tests.experiments.made import changed
from tests.reports.conftest import likelihood


def with_rows(result: AblationResult, rows: list[tuple[str, str, int, float]]) -> AblationResult:
    """Rows of seed, partition, steps and nats."""
    made = [
        changed(
            result.rows[0],
            partition=partition,
            errors=(),
            settings={"seed": seed, "partition": partition},
            likelihood=likelihood(partition, nats, steps),
        )
        for seed, partition, steps, nats in rows
    ]
    return replace(result, rows=tuple(made))


@pytest.fixture
def budget(result: AblationResult) -> AblationResult:
    """Two seeds, two schedules, and a third that comes in one size."""
    rows = [
        (seed, partition, steps, nats + int(seed))
        for seed in "01"
        for partition, steps, nats in [
            ("singles", 6, 5.0), ("linear:3", 3, 6.0), ("linear:1", 1, 9.0), ("optimal:3", 3, 5.5),
            ("optimal:2", 2, 6.5), ("cosine:2", 2, 7.0),
        ]
    ]  # fmt: skip
    return with_rows(result, rows)


def test_lines_go_from_few_steps_to_one_token_at_a_time(budget: AblationResult) -> None:
    (lines,) = budgets(budget).values()
    assert {line.name: sorted(line.nll) for line in lines} == {
        "raster, linear": [1, 3, 6],
        "raster, optimal": [2, 3, 6],
    }
    assert all(len(of_seeds) == 2 for line in lines for of_seeds in line.nll.values())


def test_a_line_has_the_rows_own_figures(budget: AblationResult) -> None:
    bits = {row.partition: row.likelihood.bits_per_dim for row in budget.rows[:6] if row.likelihood is not None}
    linear: Line = budgets(budget)[""][0]
    assert [linear.nll[steps][0] for steps in (1, 3, 6)] == [bits["linear:1"], bits["linear:3"], bits["singles"]]


def test_there_is_a_picture_of_three_sizes_and_none_of_two(budget: AblationResult, tmp_path: Path) -> None:
    path = write_steps_curve(budget, tmp_path)
    assert path is not None and path.stat().st_size > 1000
    few = with_rows(budget, [("0", "singles", 6, 5.0), ("0", "linear:3", 3, 6.0)])
    assert write_steps_curve(few, tmp_path) is None

"""The NLL in fewer and fewer steps as one picture, a line for each way to size the sets (as ARDM, arXiv 2110.02037)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mar.experiments.grid import ORDERS, PARTITION, PLAN, VARIANT
from mar.experiments.result import AblationResult, Row
from mar.reports.lines import Line, draw, lines_of, named_without

_ONE_BY_ONE = "singles"  # where every line ends


def budgets(result: AblationResult) -> dict[str, list[Line]]:
    """The lines of each data set: AR steps -> NLL, of a model, an ordering and a kind of partition in three sizes.

    Of several variants the first, and of several orders the first.
    """
    scored = [row for row in result.rows if row.likelihood is not None]
    first = {VARIANT: scored[0].settings.get(VARIANT, ""), ORDERS: "1"} if scored else {}
    rows = [row for row in scored if all(row.settings.get(axis, name) == name for axis, name in first.items())]
    schedules: dict[str, dict[str, None]] = {}  # of each ordering and model, in the order of the table
    for row in rows:
        schedules.setdefault(_of(row), {})[_schedule(row)] = None
    found = lines_of(_points(rows, schedules))
    kept = {data: [line for line in lines if len(line.nll) > 2] for data, lines in found.items()}
    return {data: lines for data, lines in kept.items() if lines}


def write_steps_curve(result: AblationResult, folder: Path) -> Path | None:
    """``steps-curve.png``; None, and no picture, where no partition comes in three sizes."""
    return draw(result, budgets(result), "AR steps", folder / "steps-curve.png")


def _points(rows: list[Row], schedules: dict[str, dict[str, None]]) -> Iterator[tuple[Row, str, int]]:
    """One token at a time belongs to every schedule."""
    for row in rows:
        own, of = _schedule(row), _of(row)
        assert row.likelihood is not None
        for schedule in schedules[of] if own == _ONE_BY_ONE else [own]:
            if schedule != _ONE_BY_ONE:
                yield row, f"{of}, {schedule}", row.likelihood.steps


def _schedule(row: Row) -> str:
    return row.partition.split(":")[0]


def _of(row: Row) -> str:
    return ", ".join(filter(None, (named_without(row, PLAN, PARTITION, VARIANT, ORDERS), row.ordering)))

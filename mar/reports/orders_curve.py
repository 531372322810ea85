"""The NLL of mixtures of 1, 2, 4, … orders as one picture: EoNADE's curve (Uria, Murray & Larochelle 2014)."""

from __future__ import annotations

from pathlib import Path

from mar.experiments.grid import ORDERS
from mar.experiments.result import AblationResult
from mar.reports.lines import Line, draw, lines_of, named_without


def mixtures(result: AblationResult) -> dict[str, list[Line]]:
    """The lines of each data set: orders -> NLL. A fixed order has one point; "mean of 16" is no mixture."""
    rows = [row for row in result.rows if row.settings.get(ORDERS, "").isdecimal()]
    return lines_of((row, named_without(row, ORDERS) or row.plan, int(row.settings[ORDERS])) for row in rows)


def write_orders_curve(result: AblationResult, folder: Path) -> Path | None:
    """``orders-curve.png``; None, and no picture, where no row is a mixture of several orders."""
    return draw(result, mixtures(result), "orders in the mixture", folder / "orders-curve.png")

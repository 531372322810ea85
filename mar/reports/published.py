"""Published figures in columns of their own, and what is said about them under the table."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from mar.experiments.grid import OURS, Published, published_of
from mar.experiments.result import AblationResult
from mar.experiments.statistics import FEWEST, Agreement, agreement, over_seeds, published_figure
from mar.reports.column import ColumnOf

RECALLED = "†"


def published_columns(result: AblationResult) -> list[ColumnOf[Any]]:
    """What is read, of single trainings or over seeds: the columns of which at least one row has a figure."""
    shown = [column for column in published_of(result.grid) if _matched(result, column)]
    return [
        ColumnOf(
            f"published: {column.title}",
            lambda row, column=column: published_figure(column, row),
            column.direction,
            digits := _decimals(column),
            lambda row, column=column, digits=digits: (
                f"{published_figure(column, row):.{digits}f}{RECALLED if column.recalled else ''}"
            ),
        )
        for column in shown
    ]


def published_data_columns(result: AblationResult) -> list[ColumnOf[Any]]:
    """What is computed with."""
    return [
        ColumnOf(
            f"published: {column.title}{' (recalled)' if column.recalled else ''}",
            lambda row, column=column: published_figure(column, row),
        )
        for column in published_of(result.grid)
    ]


def published_notes(result: AblationResult) -> list[str]:
    """A line for each column: its source, and how alike it and ours order the rows."""
    rows = "rows, means over seeds" if over_seeds(result) else "rows"
    return [_note(column, agreement(result, column), rows) for column in published_of(result.grid)]


def _note(column: Published, found: Agreement, rows: str) -> str:
    recalled = f" ({RECALLED} recalled, not re-read)" if column.recalled else ""
    return (
        f"Published: {column.title}, from {column.source}{recalled}: other data and another scale than ours, so only "
        f"the order of rows is compared. {_said(OURS[column.of][0], found, rows)}"
    )


def _said(ours: str, found: Agreement, rows: str) -> str:
    if found.n < FEWEST:
        return f"With our {ours} too few rows ({found.n}) have both figures to speak of an order."
    if found.tau is None or found.p_value is None:
        return f"With our {ours} ({found.n} rows) one column's figures are all equal: there is no order to compare."
    how = "exact" if found.exact else "normal approximation, for figures tie"
    return (
        f"With our {ours}: Kendall's τ-b {found.tau:+.2f} (1: the same order of quality, -1: the reverse) over "
        f"{found.n} {rows}, p = {found.p_value:.3f} ({how})."
    )


def _matched(result: AblationResult, column: Published) -> bool:
    return any(published_figure(column, row) is not None for row in result.rows)


def _decimals(column: Published) -> int:
    """As many as the most precise of its figures has."""
    exponents = [Decimal(repr(row.value)).normalize().as_tuple().exponent for row in column.rows]
    return max(0, *(-exponent for exponent in exponents if isinstance(exponent, int)))

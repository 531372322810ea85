"""The page's table, and what filters its rows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mar.experiments.result import AblationResult, Row
from mar.reports.column import Column, best_rows
from mar.reports.columns import columns

_UNSORTED = "problem"  # words of its own in each row


def html_table(result: AblationResult) -> str:
    """Rows and, below the line, baselines. A cell holds the value that it sorts by, a row its number."""
    shown = columns(result)
    best = [best_rows(column, result.rows) for column in shown]
    heads = "".join(
        f'<th scope="col" data-better="{c.better}"{_kind(c)}><button type="button">{escape(c.head)}</button></th>'
        for c in shown
    )
    rows = (
        f'<tr data-rows="{n}">{"".join(_cell(c, row, n in b) for c, b in zip(shown, best, strict=True))}</tr>'
        for n, row in enumerate(result.rows)
    )
    feet = (f"<tr>{''.join(_cell(c, row, False) for c in shown)}</tr>" for row in result.baselines)
    return (
        f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f"<tfoot>{''.join(feet)}</tfoot></table>"
    )


def filters(result: AblationResult) -> str:
    """A field for any cell's text and a list of values for each column of words; the page's script shows the form."""
    shown = [(number, column) for number, column in enumerate(columns(result)) if not column.numeric]
    lists = "".join(_select(number, column, result.rows) for number, column in shown if column.title != _UNSORTED)
    total = len(result.rows)
    return (
        '<form class="filters" role="search" aria-label="Filter the rows" hidden>'
        '<label>any cell <input type="search" name="find" autocomplete="off" spellcheck="false"></label>'
        f'{lists}<button type="reset">all rows</button>'
        f'<output aria-live="polite">{total} of {total} rows</output></form>'
    )


def _select(number: int, column: Column, rows: Sequence[Row]) -> str:
    """The values of a column, in the order of the rows; nothing where there is one."""
    values = list(dict.fromkeys(str(value) for row in rows if (value := column.value(row)) is not None))
    if len(values) < 2:
        return ""
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return (
        f'<label>{escape(column.title)} <select name="{escape(column.title)}" data-column="{number}">'
        f'<option value="">all</option>{options}</select></label>'
    )


def _kind(column: Column) -> str:
    return "" if column.numeric else ' class="words"'


def _cell(column: Column, row: Row, best: bool) -> str:
    value = column.value(row)
    names = [name for name, true in (("words", not column.numeric), ("best", best)) if true]
    if column.title == "problem":
        names.append("problem")
    css = f' class="{" ".join(names)}"' if names else ""
    return f'<td{css} data-value="{"" if value is None else escape(str(value))}">{escape(column.show(row))}</td>'

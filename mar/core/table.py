"""One table for every form: terminal, Markdown, CSV, LaTeX, HTML, JSON.

A column computes a cell from a row; a table is columns × rows with notes. Printed forms show ``Column.show`` and mark
the best value of a column; CSV and JSON hold the raw ``Column.value``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from mar.core.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table as RichTable

MISSING = "–"
Better = Literal["", "lower", "higher"]
_ARROWS = {"": "", "lower": " ↓", "higher": " ↑"}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$", "–": "--",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "Δ": r"$\Delta$", "×": r"$\times$",
    "τ": r"$\tau$", "≈": r"$\approx$", "†": r"$^\dagger$", "²": "$^2$", "³": "$^3$", "−": "$-$", "…": r"\dots{}",
}  # fmt: skip

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of a table.

    Attributes:
        title: the head, without unit.
        value: the raw number or text of a row; None shows as "–".
        better: the direction of better values; the head shows an arrow and printed forms mark the best.
        digits: decimals of a float in printed forms.
        text: the printed cell, where it is more than the number (an error, an interval).
        unit: follows the title in the head.
        sign: print a plus before positive floats.
        words: the values are text: left-aligned, never wrapped.
        key: the name in CSV and JSON; default: title and unit.
        alike: rows of equal value compete for the best; None: all rows compete.
        mark: rows to mark in place of the best.
        drop: 0: always shown; where the terminal is too narrow, columns of the highest number are dropped first.
    """

    title: str
    value: Callable[[R], float | int | str | None]
    better: Better = ""
    digits: int = 3
    text: Callable[[R], str] | None = None
    unit: str = ""
    sign: bool = False
    words: bool = False
    key: str = ""
    alike: Callable[[R], Hashable] | None = None
    mark: Callable[[R], bool] | None = None
    drop: int = 0

    @property
    def name(self) -> str:
        """The title with its unit: "NLL, bits/dim"."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def head(self) -> str:
        """The name with an arrow towards better values."""
        return self.name + _ARROWS[self.better]

    def show(self, row: R) -> str:
        """Return the printed cell."""
        value = self.value(row)
        if value is None:
            return MISSING
        if self.text is not None:
            return self.text(row)
        return f"{value:{'+' if self.sign else ''}.{self.digits}f}" if isinstance(value, float) else str(value)

    def best(self, rows: Sequence[R]) -> set[int]:
        """Return the indices of the best rows: of each group of comparable rows, if their values differ."""
        if self.mark is not None:
            return {k for k, row in enumerate(rows) if self.mark(row)}
        if not self.better:
            return set()
        groups: dict[Hashable, dict[int, float]] = {}
        for k, row in enumerate(rows):
            value = self.value(row)
            if isinstance(value, float | int):
                groups.setdefault(self.alike(row) if self.alike else None, {})[k] = value
        found = set()
        for group in groups.values():
            if len(set(group.values())) > 1:
                lead = (min if self.better == "lower" else max)(group.values())
                found |= {k for k, value in group.items() if value == lead}
        return found


@dataclass(frozen=True)
class Table(Generic[R]):
    """Columns of rows, with notes.

    Attributes:
        rows: the rows that compete for the best value of a column.
        notes: one line each: how to read the table.
        baselines: rows below a line; never marked best.
    """

    columns: Sequence[Column[R]]
    rows: Sequence[R]
    notes: Sequence[str] = ()
    title: str = ""
    baselines: Sequence[R] = ()

    def without_empty(self) -> Table[R]:
        """Drop the columns without any value in ``rows``."""
        return replace(self, columns=[c for c in self.columns if any(c.value(row) is not None for row in self.rows)])

    def without(self, *titles: str) -> Table[R]:
        """Drop the columns of these titles."""
        return replace(self, columns=[c for c in self.columns if c.title not in titles])

    def only(self, titles: Sequence[str]) -> Table[R]:
        """Return the table of the named columns, in this order.

        Raises:
            UserError: no column has the title, name or key.
        """
        return replace(self, columns=[self.column(title) for title in titles])

    def column(self, title: str) -> Column[R]:
        """Return the column of a title, name or key.

        Raises:
            UserError: no column has it; the message lists the titles.
        """
        for column in self.columns:
            if title in (column.title, column.name, column.key):
                return column
        raise unknown("column", title, [column.title for column in self.columns])

    def pivot(self, rows: str, columns: str, value: str) -> Table[dict[str, R]]:
        """Return the table with a row for each value of column ``rows``, a column for each value of ``columns``, and
        the cells of column ``value``.

        Raises:
            UserError: no column has a title, or two rows fall into one cell.
        """
        down, across, shown = self.column(rows), self.column(columns), self.column(value)
        found: dict[str, dict[str, R]] = {}
        for row in self.rows:
            name, head = down.show(row), across.show(row)
            line = found.setdefault(name, {})
            if head in line:
                where = f"{down.title} {name} and {across.title} {head}"
                raise UserError(f"two rows have {where}: choose columns that tell all rows apart")
            line[head] = row
        names = {id(line): name for name, line in found.items()}
        heads = dict.fromkeys(across.show(row) for row in self.rows)
        return Table(
            [Column(down.name, lambda line: names[id(line)], words=True), *(_cells(shown, head) for head in heads)],
            list(found.values()),
            [f"Columns: {across.name}. Cells: {shown.head}.", *self.notes],
            self.title,
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the table and its notes for ``rich``; columns with ``drop`` leave until the cells fit the width."""
        from rich.text import Text

        yield self._narrowed(options.max_width)._rich()
        yield from (Text(f"· {note}") for note in self.notes)

    def _narrowed(self, width: int) -> Table[R]:
        everything = [*self.rows, *self.baselines]
        sizes = {id(c): 3 + max(map(len, (c.head, *(c.show(row) for row in everything)))) for c in self.columns}
        kept = list(self.columns)
        while 1 + sum(sizes[id(c)] for c in kept) > width and any(c.drop for c in kept):
            kept.remove(max(reversed(kept), key=lambda c: c.drop))
        return replace(self, columns=kept)

    def _rich(self) -> RichTable:
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(self.title) if self.title else None, title_style="bold")
        for column in self.columns:
            table.add_column(Text(column.head), justify="left" if column.words else "right", no_wrap=column.words)
        rows, baselines = self._body(lambda column, row, best: Text(column.show(row), "bold green" if best else ""))
        for cells in rows:
            table.add_row(*cells)
        table.add_section()
        for cells in baselines:
            table.add_row(*cells, style="italic")
        return table

    def markdown(self, level: int = 1) -> str:
        """Return the title (a heading of ``level``), the table with its best values bold, and the notes."""

        def cell(column: Column[R], row: R, best: bool) -> str:
            text = column.show(row).replace("|", "\\|")
            return f"**{text}**" if best else text

        rows, baselines = self._body(cell)
        heads = [column.head for column in self.columns]
        lines = [f"{'#' * level} {self.title}", ""] if self.title else []
        lines += [f"| {' | '.join(heads)} |", f"|{'|'.join('---' if c.words else '---:' for c in self.columns)}|"]
        lines += [f"| {' | '.join(cells)} |" for cells in (*rows, *baselines)]
        return "\n".join([*lines, *(["", *(f"- {note}" for note in self.notes)] if self.notes else []), ""])

    def csv(self) -> str:
        """Return every value at full precision, baselines last; an empty field for a missing value."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([column.key or column.name for column in self.columns])
        for row in (*self.rows, *self.baselines):
            values = [column.value(row) for column in self.columns]
            writer.writerow(["" if value is None else value for value in values])
        return out.getvalue()

    def json(self) -> str:
        """Return a list of objects, one a row (baselines last), keyed as the CSV; numbers that are not finite: null."""
        rows = (*self.rows, *self.baselines)
        lines = [{column.key or column.name: _finite(column.value(row)) for column in self.columns} for row in rows]
        return json.dumps(lines, indent=1)

    def latex(self) -> str:
        r"""Return a ``tabular`` for \input in a paper that loads booktabs; the notes are comments."""
        rows, baselines = self._body(_latex_cell)
        spec = "".join("l" if column.words else "r" for column in self.columns)
        lines = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", _line([escape_latex(c.head) for c in self.columns])]
        lines += [r"\midrule", *map(_line, rows), *([r"\midrule"] if baselines else []), *map(_line, baselines)]
        lines += [r"\bottomrule", r"\end{tabular}", *(f"% {escape_latex(note)}" for note in self.notes), ""]
        return "\n".join(lines)

    def html(self, css: str = "") -> str:
        """Return a ``<table>`` of class ``css``. ``data-rows`` numbers the rows, ``data-value`` is raw."""
        rows, baselines = self._body(_html_cell)
        heads = (
            f'<th scope="col" data-better="{c.better}"{_class(c, False)}>{escape(c.head)}</th>' for c in self.columns
        )
        body = (f'<tr data-rows="{number}">{"".join(cells)}</tr>' for number, cells in enumerate(rows))
        feet = "".join(f"<tr>{''.join(cells)}</tr>" for cells in baselines)
        return (
            f'<table class="{css}"><thead><tr>{"".join(heads)}</tr></thead><tbody>{"".join(body)}</tbody>'
            f"<tfoot>{feet}</tfoot></table>"
        )

    def _body(self, cell: Callable[[Column[R], R, bool], T]) -> tuple[list[list[T]], list[list[T]]]:
        """The rows and the baselines, each cell made by ``cell(column, row, best)``."""
        best = [column.best(self.rows) for column in self.columns]
        rows = [
            [cell(column, row, number in leaders) for column, leaders in zip(self.columns, best, strict=True)]
            for number, row in enumerate(self.rows)
        ]
        return rows, [[cell(column, row, False) for column in self.columns] for row in self.baselines]


def plus_minus(mean: float, error: float, digits: int, sign: str = "") -> str:
    """Return "4.12 ± 0.03"."""
    return f"{mean:{sign}.{digits}f} ± {error:.{digits}f}"


def with_interval(mean: float, interval: tuple[float, float], digits: int) -> str:
    """Return a signed difference with its interval: "+0.12 [+0.03, +0.21]"."""
    return f"{mean:+.{digits}f} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"


def p_text(p: float | None) -> str:
    """Return a p-value for print, never a bare zero."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def escape_latex(text: str) -> str:
    """Return plain text as LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _cells(shown: Column[R], head: str) -> Column[dict[str, R]]:
    """The cells of column ``shown`` under ``head`` of a pivot; the notes name the column and its direction."""

    def of(read: Callable[[R], Any] | None) -> Callable[[dict[str, R]], Any] | None:
        return None if read is None else lambda line: read(line[head]) if head in line else None

    value = of(shown.value)
    assert value is not None
    return replace(
        shown, title=head, unit="", key="", value=value, text=of(shown.show), alike=of(shown.alike), mark=of(shown.mark)
    )  # type: ignore[return-value]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _latex_cell(column: Column[R], row: R, best: bool) -> str:
    value = column.value(row)
    # Fonts may lack the letters of a text such as a sparkline: words show their value.
    text = escape_latex(str(value) if column.words and value is not None else column.show(row))
    return rf"\textbf{{{text}}}" if best else text


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _html_cell(column: Column[R], row: R, best: bool) -> str:
    value = column.value(row)
    raw = "" if value is None else escape(str(value))
    return f'<td{_class(column, best)} data-value="{raw}">{escape(column.show(row))}</td>'


def _class(column: Column[Any], best: bool) -> str:
    names = [name for name, true in (("words", column.words), ("best", best)) if true]
    return f' class="{" ".join(names)}"' if names else ""

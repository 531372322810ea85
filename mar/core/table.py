"""One table for every form: terminal, Markdown, CSV, LaTeX, HTML, JSON.

A column computes a cell from a row; a table is columns × rows with notes. Printed forms show ``Column.show`` and mark
the best value of a column; CSV and JSON hold the raw ``Column.value``.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from mar.core.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

MISSING = "–"
Better = Literal["", "lower", "higher"]
_BEST = "bold green"
_ARROWS = {"": "", "lower": " ↓", "higher": " ↑"}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$", "–": "--",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "Δ": r"$\Delta$", "×": r"$\times$",
    "τ": r"$\tau$", "≈": r"$\approx$", "†": r"$^\dagger$", "²": "$^2$", "³": "$^3$", "−": "$-$", "…": r"\dots{}",
}  # fmt: skip


class Note(str):
    """A note that a terminal prints only under a table that shows ``about``: a head, or a part of a cell."""

    about: str

    def __new__(cls, text: str, about: str) -> Note:
        note = super().__new__(cls, text)
        note.about = about
        return note


R = TypeVar("R")
Q = TypeVar("Q")
T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of a table."""

    title: str  # the head, without unit
    value: Callable[[R], float | int | str | None]  # the raw number or text of a row; None shows as "–"
    better: Better = ""  # the direction of better values; the head shows an arrow and printed forms mark the best
    digits: int = 3  # decimals of a float in printed forms
    text: Callable[[R], str] | None = None  # the printed cell, where it is more than the number (an error, an interval)
    unit: str = ""  # follows the title in the head
    sign: bool = False  # a difference: print a plus before positive floats
    words: bool = False  # the values are text: left-aligned, never wrapped
    key: str = ""  # the name in CSV and JSON; default: title and unit
    alike: Callable[[R], Hashable] | None = None  # rows of equal value compete for the best; None: all rows compete
    mark: Callable[[R], bool] | None = None  # rows to mark in place of the best
    floor: Callable[[R], float | None] | None = None  # a value that ranks no rows; if the best is not above it, none is
    brief: bool = False  # a narrow terminal prints the number without ``text``, before it drops columns
    drop: int = 0  # 0: always shown; a narrow terminal drops the highest first, a page folds 2, a telephone also 1
    markup: Callable[[R], str] | None = None  # the cell of a page; None: the printed cell

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
        """Return the indices of the best rows: of each group of comparable rows, if the printed cells differ.

        A difference (``sign``) that is worse than zero is never best, nor is a value that is not above its ``floor``.
        """
        if self.mark is not None:
            return {k for k, row in enumerate(rows) if self.mark(row)}
        groups: dict[Hashable, dict[int, float]] = {}
        for k, row in enumerate(rows if self.better else ()):
            value = self.value(row)
            if isinstance(value, float | int) and not math.isnan(value):
                groups.setdefault(self.alike(row) if self.alike else None, {})[k] = value
        found = set()
        for group in groups.values():
            lead = (min if self.better == "lower" else max)(group.values())
            worse = self.sign and (lead > 0.0) == (self.better == "lower")
            leaders = {k for k, value in group.items() if value == lead}
            floors = [self.floor(rows[k]) or -math.inf for k in leaders] if self.floor else []
            if not (worse or lead <= max(floors, default=-math.inf)) and len({self.show(rows[k]) for k in group}) > 1:
                found |= leaders
        return found

    def of(self, read: Callable[[Q], R | None]) -> Column[Q]:
        """Return the column for other rows: ``read`` returns the row of this column in theirs; None: missing."""

        def after(function: Callable[[R], Any] | None) -> Any:
            return function and (lambda row: None if (found := read(row)) is None else function(found))

        names = ("value", "text", "alike", "mark", "markup", "floor")
        return replace(self, **{name: after(getattr(self, name)) for name in names})  # type: ignore[return-value]


def of_rows(columns: Iterable[Column[R]], read: Callable[[Q], R | None]) -> list[Column[Q]]:
    """Return the columns for other rows, each as by ``Column.of``."""
    return [column.of(read) for column in columns]


def fields(**paths: str) -> list[Column[Any]]:
    """Return columns of raw values: their names, and the attribute "a.b.0" of a row that each reads."""
    return [Column(name, field(path)) for name, path in paths.items()]


def field(path: str) -> Callable[[Any], Any]:
    """Return the function that reads "a.b.0" of a row; None where a part is None."""

    def read(row: Any) -> Any:
        for part in path.split("."):
            row = None if row is None else row[int(part)] if part.lstrip("-").isdecimal() else getattr(row, part)
        return row

    return read


def with_error(title: str, mean: str, error: str, digits: int, sign: str = "", **options: Any) -> Column[Any]:
    """Return the column of a figure and its standard error, both paths as in ``fields``."""
    value, of = field(mean), field(error)

    def text(row: Any) -> str:
        return plus_minus(value(row), of(row), digits, sign)

    return Column(title, value, digits=digits, text=text, **options)


@dataclass(frozen=True)
class Table(Generic[R]):
    """Columns of rows, with notes."""

    columns: Sequence[Column[R]]
    rows: Sequence[R]  # the rows that compete for the best value of a column
    notes: Sequence[
        str
    ] = ()  # one line each: how to read the table; a ``Note`` of what a terminal does not show is left out
    title: str = ""
    baselines: Sequence[R] = ()  # rows below a line; never marked best

    def without_empty(self) -> Table[R]:
        """Drop the columns without any value in ``rows``."""
        return replace(self, columns=[c for c in self.columns if any(c.value(row) is not None for row in self.rows)])

    def without(self, *titles: str) -> Table[R]:
        """Drop the columns of these titles."""
        return replace(self, columns=[c for c in self.columns if c.title not in titles])

    def only(self, titles: Sequence[str]) -> Table[R]:
        """Return the table of the named columns, in this order. Raises as ``column``."""
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
        cell = replace(shown, text=shown.show, unit="", key="")
        heads = dict.fromkeys(across.show(row) for row in self.rows)
        return Table(
            [
                replace(down, better="", mark=None).of(lambda line: next(iter(line.values()))),
                *(replace(cell, title=head).of(lambda line, head=head: line.get(head)) for head in heads),
            ],
            list(found.values()),
            [f"Columns: {across.name}. Cells: {shown.head}.", *self.notes],
            self.title,
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the table and its notes for ``rich``.

        In a narrow terminal heads are broken between words, ``brief`` columns print their numbers alone, columns with
        ``drop`` leave, and what is left becomes several tables under each other: no cell is cut.
        """
        from rich.table import Table as RichTable
        from rich.text import Text

        kept, width = list(self.columns), options.max_width
        if 1 + sum(map(self._narrowest, kept)) > width:
            kept = [replace(c, text=None) if c.brief else c for c in kept]
        while 1 + sum(map(self._narrowest, kept)) > width and any(c.drop for c in kept):
            kept.remove(max(reversed(kept), key=lambda c: c.drop))
        lead = self._leading(kept, width)
        blocks: list[list[Column[R]]] = [kept[:lead]]
        for column in kept[lead:]:
            if 1 + sum(map(self._narrowest, [*blocks[-1], column])) > width and len(blocks[-1]) > lead:
                blocks.append(kept[:lead])
            blocks[-1].append(column)
        for number, block in enumerate(blocks):
            table = RichTable(title=Text(self.title) if self.title and not number else None, title_style="bold")
            wide = 1 + sum(map(self._widest, block)) > width
            for column in block:
                least = self._narrowest(column) - 3 if wide else None
                justify = "left" if column.words else "right"
                table.add_column(Text(column.head), justify=justify, width=least, no_wrap=not wide, overflow="fold")
            lines = replace(self, columns=block)._cells(lambda c, row, best: Text(c.show(row), _BEST if best else ""))
            for line, cells in enumerate(lines, start=1):
                last = line == len(self.rows)
                table.add_row(*cells, style="italic" if line > len(self.rows) else None, end_section=last)
            yield table
        shown = [*(c.head for c in kept), *(c.show(row) for c in kept for row in (*self.rows, *self.baselines))]
        for note in self.notes:
            if not isinstance(note, Note) or any(note.about in text for text in shown):
                yield Text(f"· {note}")

    def markdown(self, level: int = 1) -> str:
        """Return the title (a heading of ``level``), the table with its best values bold, and the notes."""

        def cell(column: Column[R], row: R, best: bool) -> str:
            text = escape_markdown(column.show(row))
            return f"**{text}**" if best else text

        heads = [escape_markdown(column.head) for column in self.columns]
        rules = ["---" if column.words else "---:" for column in self.columns]
        lines = [f"{'#' * level} {escape_markdown(self.title)}", ""] if self.title else []
        lines += [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|"]
        lines += [f"| {' | '.join(cells)} |" for cells in self._cells(cell)]
        notes = [f"- {escape_markdown(note, cell=False)}" for note in self.notes]
        return "\n".join([*lines, *(["", *notes] if notes else []), ""])

    def csv(self) -> str:
        """Return every value at full precision, baselines last; an empty field for a missing value."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([column.key or column.name for column in self.columns])
        writer.writerows(self._cells(lambda column, row, _: escape_csv(column.value(row))))
        return out.getvalue()

    def json(self) -> str:
        """Return a list of objects, one a row (baselines last), keyed as the CSV; numbers that are not finite: null."""
        names = [column.key or column.name for column in self.columns]
        lines = self._cells(lambda column, row, _: _finite(column.value(row)))
        return json.dumps([dict(zip(names, line, strict=True)) for line in lines], indent=1)

    def latex(self) -> str:
        r"""Return a ``tabular`` for \input in a paper that loads booktabs; the notes are comments."""

        def cell(column: Column[R], row: R, best: bool) -> str:
            value = column.value(row)
            # Fonts may lack the letters of a text such as a sparkline: words show their value.
            text = escape_latex(str(value) if column.words and value is not None else column.show(row))
            return rf"\textbf{{{text}}}" if best else text

        lines = [rf"{' & '.join(cells)} \\" for cells in self._cells(cell)]
        spec = "".join("l" if column.words else "r" for column in self.columns)
        heads = rf"{' & '.join(escape_latex(column.head) for column in self.columns)} \\"
        if self.baselines:
            lines.insert(len(self.rows), r"\midrule")
        lines = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", heads, r"\midrule", *lines, r"\bottomrule"]
        return "\n".join([*lines, r"\end{tabular}", *(f"% {escape_latex(note)}" for note in self.notes), ""])

    def html(self, css: str = "", numbers: Sequence[str] = (), anchor: str = "") -> str:
        """Return a ``<table>`` of class ``css``; ``data-value`` is raw.

        Args:
            numbers: ``data-rows`` of each row, "0 7"; default its own number.
            anchor: of each row's id, followed by its first number; empty: no ids.
        """

        def style(column: Column[R], best: bool = False) -> str:
            names = ["words"] * column.words + ["best"] * best + ["", "less", "more"][min(column.drop, 2)].split()
            return f' class="{" ".join(names)}"' if names else ""

        def cell(column: Column[R], row: R, best: bool) -> str:
            value = column.value(row)
            raw = "" if value is None else escape(str(value))
            shown = escape(column.show(row)) if column.markup is None else column.markup(row)
            return f'<td{style(column, best)} data-value="{raw}">{shown}</td>'

        lines, count = ["".join(cells) for cells in self._cells(cell)], len(self.rows)
        heads = "".join(
            f'<th scope="col" data-better="{c.better}"{style(c)}>{escape(c.head)}</th>' for c in self.columns
        )
        body = ""
        for number, line in zip(numbers or map(str, range(count)), lines[:count], strict=True):
            name = f' id="{anchor}{number.split()[0]}"' if anchor else ""
            body += f'<tr{name} data-rows="{number}">{line}</tr>'
        feet = "".join(f"<tr>{line}</tr>" for line in lines[count:])
        head = f"<thead><tr>{heads}</tr></thead>"
        return f'<table class="{css}">{head}<tbody>{body}</tbody><tfoot>{feet}</tfoot></table>'

    def _leading(self, kept: Sequence[Column[R]], width: int) -> int:
        """Return the number of first columns that tell the rows apart: every part of a table repeats them. It is 1 if a
        column does not fit beside them into ``width``."""
        sizes = [*map(self._narrowest, kept)]
        for count in range(1, len(kept)):
            names = {tuple(column.show(row) for column in kept[:count]) for row in self.rows}
            if len(names) == len(self.rows):
                return count if 1 + sum(sizes[:count]) + max(sizes[count:]) <= width else 1
        return 1

    def _widest(self, column: Column[R], words: Callable[[str], Sequence[str]] = lambda head: [head]) -> int:
        cells = (column.show(row) for row in (*self.rows, *self.baselines))
        return 3 + max(map(len, (*words(column.head), *cells)), default=0)

    def _narrowest(self, column: Column[R]) -> int:
        return self._widest(column, str.split)

    def _cells(self, cell: Callable[[Column[R], R, bool], T]) -> list[list[T]]:
        """The lines of the rows and then of the baselines, each cell made by ``cell(column, row, best)``."""
        best = [column.best(self.rows) for column in self.columns]
        return [
            [cell(column, row, number in leaders) for column, leaders in zip(self.columns, best, strict=True)]
            for number, row in enumerate((*self.rows, *self.baselines))
        ]


def plus_minus(mean: float, error: float, digits: int, sign: str = "") -> str:
    """Return "4.12 ± 0.03"; "4.12" where the error is nan, as that of one image."""
    return f"{mean:{sign}.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def with_interval(mean: float, interval: tuple[float, float], digits: int) -> str:
    """Return a signed difference with its interval: "+0.12 [+0.03, +0.21]"."""
    return f"{mean:+.{digits}f} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"


def p_text(p: float | None) -> str:
    """Return a p-value for print, never a bare zero."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def escape_latex(text: str) -> str:
    """Return plain text as LaTeX, in one line."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.splitlines()))


def escape_markdown(text: str, cell: bool = True) -> str:
    """Return plain text as Markdown, in one line: without tags and links, in a ``cell`` also without columns."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.splitlines())).replace("](", "]\\(")
    return text.replace("|", "\\|") if cell else text


def escape_csv(value: float | int | str | None) -> float | int | str:
    """Return the field of a value: a text that a spreadsheet would compute starts with an apostrophe."""
    if isinstance(value, str) and re.match(r"[=+\-@\t\r]", value) and not re.fullmatch(r"[+-]?[\d.]+", value):
        return f"'{value}"
    return "" if value is None else value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

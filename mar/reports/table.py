"""An ablation's table as Markdown, CSV, LaTeX, and in the terminal; over seeds, too, where there are several."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mar.core.files import write_atomic
from mar.experiments.result import AblationResult
from mar.experiments.statistics import over_seeds
from mar.reports.column import ColumnOf, R, best_rows
from mar.reports.columns import columns, compact, data_columns
from mar.reports.latex import latex, seeds_latex
from mar.reports.notes import notes_of
from mar.reports.seeds import seed_columns, seed_data_columns, seed_notes

if TYPE_CHECKING:
    from rich.table import Table


def write_tables(result: AblationResult, folder: Path) -> list[Path]:
    """``table.md``, ``table.csv`` and ``table.tex``, with several seeds also ``seeds.csv`` and ``seeds.tex``; returns
    their paths."""
    forms = {"table.md": markdown(result), "table.csv": as_csv(result), "table.tex": latex(result)}
    if over_seeds(result):
        forms |= {"seeds.csv": seeds_csv(result), "seeds.tex": seeds_latex(result)}
    for name, text in forms.items():
        write_atomic(folder / name, text)
    return [folder / name for name in forms]


def markdown(result: AblationResult) -> str:
    """A title, the table (best values bold), and what to know to read it; the same over seeds."""
    lines = [f"# {result.name}", "", *_lines(columns(result), result.rows, result.baselines), ""]
    lines += [*(f"- {note}" for note in notes_of(result)), ""]
    if rows := over_seeds(result):
        lines += ["## Over seeds", "", *_lines(seed_columns(result), rows, ()), ""]
        lines += [*(f"- {note}" for note in seed_notes(result)), ""]
    return "\n".join(lines)


def _lines(shown: Sequence[ColumnOf[R]], rows: Sequence[R], feet: Sequence[R]) -> list[str]:
    best = [best_rows(column, rows) for column in shown]
    lines = [
        "| " + " | ".join(column.head for column in shown) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in shown) + "|",
    ]
    for number, row in enumerate((*rows, *feet)):
        cells = [column.show(row).replace("|", "\\|") for column in shown]
        cells = [f"**{text}**" if number in leaders else text for text, leaders in zip(cells, best, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def as_csv(result: AblationResult) -> str:
    """Every number at full precision, in columns with units in their names; baselines are the last rows."""
    return _csv(data_columns(result), (*result.rows, *result.baselines))


def seeds_csv(result: AblationResult) -> str:
    """The same over seeds: means and deviations."""
    return _csv(seed_data_columns(result), over_seeds(result))


def _csv(shown: Sequence[ColumnOf[R]], rows: Sequence[R]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.title for column in shown])
    for row in rows:
        values = [column.value(row) for column in shown]
        writer.writerow(["" if value is None else value for value in values])
    return out.getvalue()


def terminal(result: AblationResult) -> list[Any]:
    """The table, what failed, and the notes, for ``rich``."""
    from rich.text import Text

    tables = [_rich(result.name, compact(result), result.rows, result.baselines)]
    notes = notes_of(result)
    if rows := over_seeds(result):
        tables.append(_rich("over seeds", seed_columns(result), rows, ()))
        notes += seed_notes(result)
    failures = [Text(f"{row.name}: {error}", style="red") for row in result.rows for error in row.errors]
    return [*tables, *failures, *(Text(f"· {note}") for note in notes)]


def _rich(title: str, shown: Sequence[ColumnOf[R]], rows: Sequence[R], feet: Sequence[R]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_style="bold")
    for column in shown:
        table.add_column(column.head, justify="right" if column.numeric else "left", no_wrap=not column.numeric)
    best = [best_rows(column, rows) for column in shown]
    for number, row in enumerate(rows):
        cells = [
            Text(column.show(row), style="bold green" if number in leaders else "")
            for column, leaders in zip(shown, best, strict=True)
        ]
        table.add_row(*cells)
    table.add_section()
    for row in feet:
        table.add_row(*(column.show(row) for column in shown), style="italic")
    return table

"""An ablation's table as Markdown, CSV, LaTeX, and in the terminal."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mar.ablation.result import AblationResult, Row
from mar.reports.column import Column, best_rows
from mar.reports.columns import columns, compact, data_columns
from mar.reports.latex import latex
from mar.reports.notes import notes_of
from mar.reports.seeds import NOTE, seeds_markdown, seeds_table
from mar.training.run_folder import write

if TYPE_CHECKING:
    from rich.table import Table


def write_tables(result: AblationResult, folder: Path) -> list[Path]:
    """``table.md``, ``table.csv`` and ``table.tex``; returns their paths."""
    forms = {"table.md": markdown(result), "table.csv": as_csv(result), "table.tex": latex(result)}
    for name, text in forms.items():
        write(folder / name, text)
    return [folder / name for name in forms]


def markdown(result: AblationResult) -> str:
    """A title, the table (best values bold), and what to know to read it."""
    shown = columns(result)
    best = [best_rows(column, result.rows) for column in shown]
    lines = [
        "| " + " | ".join(column.head for column in shown) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in shown) + "|",
    ]
    for number, row in enumerate((*result.rows, *result.baselines)):
        cells = [column.show(row).replace("|", "\\|") for column in shown]
        cells = [f"**{text}**" if number in rows else text for text, rows in zip(cells, best, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"- {note}" for note in notes_of(result)]
    return "\n".join([f"# {result.name}", "", *lines, "", *notes, "", *seeds_markdown(result)])


def as_csv(result: AblationResult) -> str:
    """Every number at full precision, in columns with units in their names; baselines are the last rows."""
    out, shown = io.StringIO(), data_columns(result)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.title for column in shown])
    for row in (*result.rows, *result.baselines):
        values = [column.value(row) for column in shown]
        writer.writerow(["" if value is None else value for value in values])
    return out.getvalue()


def terminal(result: AblationResult) -> list[Any]:
    """The table, what failed, and the notes, for ``rich``."""
    from rich.table import Table
    from rich.text import Text

    shown = compact(result)
    table = Table(title=result.name, title_style="bold")
    for column in shown:
        table.add_column(column.head, justify="right" if column.numeric else "left", no_wrap=not column.numeric)
    best = [best_rows(column, result.rows) for column in shown]
    for number, row in enumerate(result.rows):
        cells = [
            Text(column.show(row), style="bold green" if number in rows else "")
            for column, rows in zip(shown, best, strict=True)
        ]
        table.add_row(*cells)
    _add_baselines(table, result.baselines, shown)
    failures = [Text(f"{row.name}: {error}", style="red") for row in result.rows for error in row.errors]
    return [table, *_over_seeds(result), *failures, *(Text(f"· {note}") for note in notes_of(result))]


def _over_seeds(result: AblationResult) -> list[Any]:
    from rich.table import Table

    heads, rows = seeds_table(result)
    if not rows:
        return []
    table = Table(*heads, title="over seeds", caption=NOTE)
    for cells in rows:
        table.add_row(*cells)
    return [table]


def _add_baselines(table: Table, baselines: tuple[Row, ...], shown: list[Column]) -> None:
    table.add_section()
    for row in baselines:
        table.add_row(*(column.show(row) for column in shown), style="italic")

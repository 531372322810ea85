"""``mar report``: the page and the tables of a grid's folder or a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

from mar.cli.options import arg, listed, opt
from mar.core.errors import UserError

# ruff: noqa: UP045 - typer reads Optional


def report(
    folder: Annotated[Path, arg("A results folder, or the --out of mar ablate.")],
    out: Annotated[Optional[Path], opt("The page; default FOLDER/index.html.")] = None,
    markdown: Annotated[bool, opt("Print the table as Markdown; write no page.", "--markdown")] = False,
    csv: Annotated[bool, opt("Print every number at full precision.", "--csv")] = False,
    latex: Annotated[bool, opt("Print a tabular for a paper that loads booktabs.", "--latex")] = False,
    json: Annotated[bool, opt("Print a list of objects, one a row.", "--json")] = False,
    seeds: Annotated[bool, opt("Print the table over seeds.", "--seeds")] = False,
    columns: Annotated[str, opt("Comma-separated titles of the printed columns.")] = "",
    pivot: Annotated[
        Optional[tuple[str, str, str]], opt("Print a pivot of three columns.", metavar="ROWS COLUMNS VALUE")
    ] = None,
) -> None:
    """Write the page of a grid, or print its table in another form.

    Examples:

        mar report results/digits --out page.html
        mar report results/digits --latex --columns ordering,partition,NLL,FID
        mar report results/digits --latex --pivot ordering partition NLL
    """
    from mar.experiments.result import read_result
    from mar.reports import tables
    from mar.reports.columns import in_asked_unit
    from mar.reports.page import write_page

    result = in_asked_unit(read_result(folder))
    forms = {"markdown": markdown, "csv": csv, "latex": latex, "json": json}
    chosen = [name for name, asked in forms.items() if asked]
    if len(chosen) > 1:
        raise UserError(f"choose one form: --{' or --'.join(chosen)}")
    if not chosen:
        if seeds or columns or pivot:
            raise UserError("--seeds, --columns and --pivot belong to --markdown, --csv, --latex or --json")
        print(f"wrote {write_page(result, folder, out or folder / 'index.html')}")
        return
    data = chosen[0] in ("csv", "json") and pivot is None
    table: Any = tables.seeds_table(result) if seeds else tables.grid_table(result)
    if data:
        table = tables.seeds_data_table(result) if seeds else tables.data_table(result)
    if seeds and not table.rows:
        raise UserError(f"{folder} has no table over seeds: its grid has one seed")
    if columns:
        table = table.only(listed(columns))
    if pivot:
        table = table.pivot(*pivot)
    print(getattr(table, chosen[0])(), end="")

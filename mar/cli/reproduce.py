"""``mar reproduce``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from mar.cli.grids import DryRun, Overrides, Processes, Results, RetryFailed, Slurm, Workers, list_cells, make_table
from mar.cli.running import Where

# ruff: noqa: UP045 - typer reads Optional


def reproduce(
    name: Annotated[Optional[str], typer.Argument(help="A table; without it, all are listed.")] = None,
    overrides: Overrides = None,
    scale: Annotated[
        Optional[str], typer.Option(help="digits, fashion, gpu or paper; default the table's smallest.")
    ] = None,
    data: Annotated[Optional[Path], typer.Option(help="Where the data lie that the table reads.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="The folder; default runs/reproduce/NAME-SCALE.")] = None,
    workers: Workers = 1,
    processes: Processes = 1,
    slurm: Slurm = None,
    results: Results = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
) -> None:
    """Make a table of a paper at some scale, published figures beside it. The same command goes on.

    Each is a grid (`mar ablate NAME/SCALE`) of the folder mar/recipes/tables, at some of four scales: digits (minutes on two CPU cores),
    fashion (an hour or so), gpu (half an hour of an H100), paper (the full recipe).

    Examples:

        mar reproduce

        mar reproduce rar-orders

        mar reproduce eonade-ensemble --scale gpu --data ~/data/binarized-mnist --dry-run

        mar reproduce rar-orders seed=0 --workers 2 --results results/rar-orders
    """
    from mar.experiments.grid import find, read

    if name is None:
        _list_tables()
        return
    table = find(name, scale)
    folder = out or Path("runs") / "reproduce" / f"{table.name}-{table.scale}"
    grid = read(table.grid, [*_given(table, data, overrides or []), *(overrides or [])], folder)
    where = Where(workers, processes, tuple(slurm or ()))
    if dry_run:
        list_cells(grid, folder, where)
    else:
        make_table(grid, folder, where, retry_failed, results)


def _given(table, data: Path | None, overrides: list[str]) -> list[str]:
    """What ``--data`` sets.

    Raises:
        UserError: it is needed and not there, or the table reads no data.
    """
    from mar.core.errors import UserError

    said = {text.partition("=")[0] for text in overrides}
    missing = [key for key in table.needs if f"given.{key}" not in said and not (key == "data" and data is not None)]
    if missing:
        wants = " ".join("--data PATH" if key == "data" else f"given.{key}=…" for key in missing)
        raise UserError(f"{table.name} at the scale {table.scale} needs {wants}: see the top of {table.path}")
    if data is None:
        return []
    if not table.takes_data:
        raise UserError(
            f"{table.name} at the scale {table.scale} reads no data but the project's own: leave --data out"
        )
    if not data.expanduser().exists():
        raise UserError(f"--data: there is no {data}")
    return [f"given.data={json.dumps(str(data.expanduser()))}"]


def _list_tables() -> None:
    from mar.experiments.grid import tables

    for name, scales in tables().items():
        print(f"{name}\n    {scales[0].asks}")
        for table in scales:
            needs = "".join(" --data PATH" if key == "data" else f" given.{key}=…" for key in table.needs)
            print(f"    --scale {table.scale}{needs}: {table.time}")

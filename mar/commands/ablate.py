"""``mar ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045 - typer reads Optional


def ablate(
    name: Annotated[str, typer.Argument(help="A shipped ablation (digits) or a YAML grid file.")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="key=value changes of the grid or its recipe.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="The folder; default runs/ablate-NAME.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the plans and what is done; train nothing.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Evaluate again what failed before.")] = False,
) -> None:
    """Train one model, score it under many plans, and write the table and the page. The same command goes on.

    Writes table.md, table.csv, result.json and index.html. Every plan is scored on the same images and noise; the
    differences to a reference plan are paired.

    Examples:

        mar ablate digits

        mar ablate digits train.iterations=300 fid.images=100 --out runs/quick

        mar ablate digits 'orderings=[raster,spiral:outward,random]' 'partitions=[singles,linear:8]'

        mar ablate my-grid.yaml --dry-run
    """
    from rich.console import Console

    from mar.ablation.assemble import assemble
    from mar.ablation.engine import Engine
    from mar.ablation.grid import read
    from mar.commands.progress import bar
    from mar.reports.page import write_page
    from mar.reports.table import terminal, write_tables

    console = Console()
    grid = read(name, overrides or [])
    folder = out or Path("runs") / f"ablate-{grid.name}"
    engine = Engine(grid, folder, bar, retry_failed)
    if dry_run:
        _list(engine, console)
        return
    result = assemble(engine, engine.run())
    result.save(folder / "result.json")
    markdown, csv = write_tables(result, folder)
    page = write_page(result, folder)
    console.print(*terminal(result), sep="\n")
    print(f"table: {markdown}\n       {csv}\npage:  {page}")
    failed = [row.plan for row in result.rows if row.errors]
    if failed:
        print(f"{len(failed)} of {len(result.rows)} plans failed, see the table; --retry-failed tries them again")
        raise typer.Exit(1)


def _list(engine, console) -> None:
    """What a run would do, and what is done already."""
    from rich.table import Table

    recipe = engine.recipe
    state = "trained" if engine.trained else "to train"
    console.print(
        f"{recipe.name}: {engine.n_parameters:,} parameters, {recipe.train.iterations} iterations of "
        f"{recipe.train.batch_size}, {state} ({engine.folder.path})"
    )
    wanted = [kind for kind in ("nll", "fid") if getattr(engine.grid, kind) is not None]
    table = Table(*("plan", "AR steps", *wanted))
    for plan, plan_map in engine.maps.items():
        records = [engine.record(plan, kind) for kind in wanted]
        states = ["to do" if r is None else "failed" if r.error else "done" for r in records]
        table.add_row(plan, str(max(plan_map.step_L) + 1), *states)
    console.print(table)

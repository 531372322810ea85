"""A grid from its file to its table: what ``mar ablate`` and ``mar reproduce`` do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mar.cli.running import Where, engine_of, report, run

if TYPE_CHECKING:
    from rich.console import Console

    from mar.experiments.engine import Engine
    from mar.experiments.grid import GridFile

# ruff: noqa: UP045 - typer reads Optional

Overrides = Annotated[Optional[list[str]], typer.Argument(help="key=value changes of the grid or its recipes.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with its share of the cores.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes that a cell is trained in, by torchrun; a GPU each.")]
Slurm = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="KEY=VALUE",
        help="Run as jobs of Slurm: sbatch's options in submitit's names, jobs=N; cluster=local tries it out on this machine. Give it again for each key.",
    ),
]
Results = Annotated[
    Optional[Path], typer.Option(help="Keep table, figures and page here, e.g. results/NAME, and how they were made.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the cells and their cost; train nothing.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Do again what failed before.")]


def make_table(
    grid: GridFile, out: Path, where: Where, retry_failed: bool = False, results: Path | None = None
) -> None:
    """Prepare, train, evaluate, report; with ``results``, keep what was reported there.

    Raises:
        typer.Exit: some cells failed. Besides as ``mar.experiments.prepare.prepare`` and ``mar.cli.running.run``.
    """
    from mar.core.progress import wide_console
    from mar.experiments.prepare import prepare
    from mar.reports.results_folder import keep_results

    console = wide_console()
    _check(grid)
    prepare(grid, out, lambda said: console.print(said, style="bold", highlight=False, markup=False))
    engine = engine_of(grid, out, where)
    run(engine, where, retry_failed, console)
    failed = report(engine, console)
    if results is not None:
        print(*keep_results(engine, results), sep="\n")
    if failed:
        print(f"{failed} of {len(engine.cells)} cells failed, see the table; --retry-failed tries them again")
        raise typer.Exit(1)


def list_cells(grid: GridFile, out: Path, where: Where) -> None:
    """What would be prepared, the cells, and what each costs; of cells that read what is not there yet, that.

    Raises:
        UserError, Unsupported: as Engine, where nothing is to be prepared.
    """
    from mar.core.errors import MarError
    from mar.core.progress import wide_console
    from mar.experiments.prepare import pending

    console, todo = wide_console(), pending(grid, out)
    _check(grid)
    for command in grid.prepare:
        state = "prepare first" if command in todo else "prepared already"
        console.print(f"{state}: mar {command}", highlight=False, markup=False)
    try:
        engine = engine_of(grid, out, where)
    except MarError as error:
        if not todo:
            raise
        cells = grid.combinations()
        console.print(f"{len(cells)} cell(s), whose cost is known when that is done ({error}):", markup=False)
        console.print(*(", ".join(cell.settings.values()) or grid.name for cell in cells), sep="\n", markup=False)
        return
    _list(engine, where.workers, console)


def _check(grid: GridFile) -> None:
    """Refuse a wrong option of any cell before hours of preparation. Raises UserError."""
    from mar import build

    for _, recipe in grid.recipes():
        build.resolve(recipe)


def _list(engine: Engine, workers: int, console: Console) -> None:
    """The cells, what each costs, and what is done already."""
    import torch
    from rich.table import Table

    from mar.core.signals import cores
    from mar.experiments.speed import seconds_per_iteration
    from mar.experiments.state import states

    torch.set_num_threads(max(1, cores() // workers))
    table = Table(*("cell", "parameters", "plans", "iterations", "training, s", "state"))
    total = 0.0
    for cell, state in zip(engine.cells, states(engine), strict=True):
        train, seconds = cell.recipe.train, None
        if cell.served:
            seconds = train.iterations * seconds_per_iteration(cell.recipe, cell.data)
            total += seconds * (1.0 - (state.share or 0.0))
        plans = ", ".join(cell.plans) if len(cell.plans) <= 3 else f"{len(cell.served)} plans"
        said = "–" if seconds is None else f"{seconds:.0f}"
        work = f"{train.iterations} of {train.batch_size}"
        table.add_row(cell.name, f"{cell.n_parameters:,}", plans, work, said, f"{state.kind}: {state.text}")
    console.print(table)
    console.print(f"about {total / workers / 60:.1f} min of training with {workers} worker(s); evaluation comes on top")

"""``mar ablate`` and ``mar status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mar.ablation.engine import Engine

# ruff: noqa: UP045 - typer reads Optional


def ablate(
    name: Annotated[str, typer.Argument(help="A shipped ablation (digits, digits-networks) or a YAML grid file.")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="key=value changes of the grid or its recipes.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="The folder; default runs/ablate-NAME.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with its share of the cores.")] = 1,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that a cell is trained in, by torchrun; a GPU each.")
    ] = 1,
    slurm: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="KEY=VALUE",
            help="Run as jobs of Slurm: sbatch's options in submitit's names, jobs=N; cluster=local tries it out on this machine. Give it again for each key.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and their cost; train nothing.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Do again what failed before.")] = False,
) -> None:
    """Train the models of a grid, score them under its plans, and write the table and the page. The same command goes on.

    Writes table.md, table.csv, table.tex, result.json, index.html, learning-curves.png and pareto.png. Every row is scored on the same images
    and noise; the differences to the reference are paired.

    Examples:

        mar ablate digits

        mar ablate digits train.iterations=300 fid.images=100 --out runs/quick

        mar ablate digits 'orderings=[raster,spiral:outward,random]' 'partitions=[singles,linear:8]'

        mar ablate digits-networks --workers 2

        mar ablate digits-networks 'only.network=[made,lstm]' train.iterations=50 --out runs/quick

        mar ablate my-grid.yaml --processes 4

        mar ablate my-grid.yaml --slurm partition=gpu --slurm gpus_per_node=1 --slurm time=240 --slurm jobs=8

        mar ablate my-grid.yaml --dry-run
    """
    from mar.ablation.grid import read
    from mar.commands.progress import wide_console
    from mar.commands.running import Where, engine_of, report, run

    console = wide_console()
    grid = read(name, overrides or [])
    folder = out or Path("runs") / f"ablate-{grid.name}"
    where = Where(workers, processes, tuple(slurm or ()))
    engine = engine_of(grid, folder, where)
    if dry_run:
        _list(engine, workers, console)
        return
    run(engine, where, retry_failed, console)
    failed = report(engine, console)
    if failed:
        print(f"{failed} of {len(engine.cells)} cells failed, see the table; --retry-failed tries them again")
        raise typer.Exit(1)


def status(
    out: Annotated[Path, typer.Argument(help="The folder of an ablation, or a run folder.")],
) -> None:
    """How far an ablation is, or a run.

    Examples:

        mar status runs/ablate-digits-networks

        mar status runs/digits
    """
    from mar.ablation.engine import Engine
    from mar.ablation.state import share, states
    from mar.ablation.workers import read_grid
    from mar.commands.progress import wide_console
    from mar.errors import UserError
    from mar.training.run_folder import RunFolder

    if (out / "recipe.yaml").is_file():
        run = RunFolder(out)
        history, iterations = run.history(), run.recipe().train.iterations
        print(f"{out}: {history[-1]['iteration'] if history else 0} of {iterations} iterations")
        return
    if not (out / "grid.yaml").is_file():
        raise UserError(f"{out} is neither an ablation (it has no grid.yaml) nor a run (no recipe.yaml)")
    found = states(Engine(read_grid(out), out))
    wide_console().print(_states_table(found))
    print(f"{100 * share(found):.0f} % done")


def _list(engine: Engine, workers: int, console: Console) -> None:
    """The cells, what each costs, and what is done already."""
    import torch
    from rich.table import Table

    from mar.ablation.speed import seconds_per_iteration
    from mar.ablation.state import states
    from mar.ablation.workers import cores

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


def _states_table(found):
    from rich.table import Table

    colours = {"done": "green", "failed": "red", "refused": "dim", "waiting": "dim"}
    table = Table("cell", "state", "")
    for state in found:
        style = colours.get(state.kind, "")
        table.add_row(state.name, state.kind, state.text, style=style)
    return table

"""``mar ablate`` and ``mar status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from mar.ablation.engine import Engine
    from mar.ablation.result import AblationResult

# ruff: noqa: UP045 - typer reads Optional


def ablate(
    name: Annotated[str, typer.Argument(help="A shipped ablation (digits, digits-networks) or a YAML grid file.")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="key=value changes of the grid or its recipes.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="The folder; default runs/ablate-NAME.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with its share of the cores.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and their cost; train nothing.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Do again what failed before.")] = False,
) -> None:
    """Train the models of a grid, score them under its plans, and write the table and the page. The same command goes on.

    Writes table.md, table.csv, table.tex, result.json, index.html and learning-curves.png. Every row is scored on the same images
    and noise; the differences to the reference are paired.

    Examples:

        mar ablate digits

        mar ablate digits train.iterations=300 fid.images=100 --out runs/quick

        mar ablate digits 'orderings=[raster,spiral:outward,random]' 'partitions=[singles,linear:8]'

        mar ablate digits-networks --workers 2

        mar ablate digits-networks 'only.network=[made,lstm]' train.iterations=50 --out runs/quick

        mar ablate my-grid.yaml --dry-run
    """
    from mar.ablation.engine import Engine
    from mar.ablation.grid import read
    from mar.commands.progress import bar, wide_console

    console = wide_console()
    grid = read(name, overrides or [])
    folder = out or Path("runs") / f"ablate-{grid.name}"
    engine = Engine(grid, folder, bar)
    if dry_run:
        _list(engine, workers, console)
        return
    engine.prepare()
    _run(engine, workers, retry_failed, console)
    failed = _report(engine, console)
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


def _run(engine: Engine, workers: int, retry_failed: bool, console: Console) -> None:
    """Everything that is left, here or in workers; then what others hold, and the speeds."""
    if workers == 1:
        engine.work(retry_failed, go_on=_announcing(engine, console))
    else:
        _run_workers(engine, workers, retry_failed, console)
    engine.work(wait=True)
    engine.measure_speeds(retry_failed)


def _announcing(engine: Engine, console: Console):
    """Says before each cell how far the grid is; it always goes on."""
    from mar.ablation.state import Clock, states

    clock = Clock(engine)

    def go_on() -> bool:
        if len(engine.cells) > 1:
            console.print(_progress(states(engine), clock), style="bold")
        return True

    return go_on


def _run_workers(engine: Engine, workers: int, retry_failed: bool, console: Console) -> None:
    from rich.progress import BarColumn, Progress, TextColumn

    from mar.ablation.state import Clock, share, states
    from mar.ablation.workers import run_workers

    clock = Clock(engine)
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as display:
        task = display.add_task("", total=1.0)

        def watch() -> None:
            now = states(engine)
            display.update(task, completed=share(now), description=_progress(now, clock))

        codes = run_workers(engine.out, workers, retry_failed, watch)
        watch()
    if any(codes):
        console.print(f"some workers ended with {codes}: their logs are in {engine.out / 'logs'}", style="red")


def _progress(now, clock) -> str:
    """How many cells are finished, and the time that is left."""
    done = sum(state.kind in ("done", "failed", "speed") for state in now)
    left = clock.left(now)
    todo = sum(state.share is not None for state in now)
    return f"{done} of {todo} cells" + ("" if left is None else f", about {left / 60:.0f} min left")


def _report(engine: Engine, console: Console) -> int:
    """Write and print everything; returns how many cells failed."""
    from mar.ablation.assemble import assemble
    from mar.reports.curves import write_curves
    from mar.reports.page import write_page
    from mar.reports.table import terminal, write_tables

    result: AblationResult = assemble(engine)
    result.save(engine.out / "result.json")
    written = [*write_tables(result, engine.out), write_curves(result, engine.out), write_page(result, engine.out)]
    console.print(*terminal(result), sep="\n")
    print("wrote: " + "\n       ".join(map(str, written)))
    return len({row.model for row in result.rows if row.errors})


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

"""``mar ablate``, ``mar reproduce`` and ``mar status``: run a grid, wherever it runs, report on it, and tell how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mar.cli.options import Execution, Json, grouped, print_tables

if TYPE_CHECKING:
    from rich.console import Console

    from mar.experiments.engine import Engine
    from mar.experiments.grid import GridFile
    from mar.experiments.launch import WorkerSpec
    from mar.experiments.result import AblationResult
    from mar.experiments.state import Clock, State

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value pairs that change the grid or its recipes.")]


@grouped
def ablate(
    name: Annotated[str, typer.Argument(help="A shipped ablation (digits, digits-networks) or a YAML grid file.")],
    execution: Execution,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The folder; default runs/ablate-NAME.")] = None,
) -> None:
    """Train the models of a grid, score them under its plans, and write the table and the page.

    Run the same command again to continue. Writes table.md, table.csv, table.tex, result.json, index.html,
    learning-curves.png and pareto.png. Every row is scored on the same images and noise; differences to the reference
    are paired.

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
    from mar.experiments.shipped import default_out, grid_path

    grid_path(name)  # refuse a mistyped name before torch is imported

    from mar.experiments.grid import read

    grid = read(name, overrides or [], out)
    run_grid(grid, out or default_out(grid.name), execution)


@grouped
def reproduce(
    execution: Execution,
    name: Annotated[str | None, typer.Argument(help="A table; without a name, all tables are listed.")] = None,
    overrides: Overrides = None,
    scale: Annotated[
        str | None, typer.Option(help="digits, fashion, gpu or paper; default the table's smallest.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set of the table.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; default runs/reproduce/NAME-SCALE.")] = None,
) -> None:
    """Make a table of a paper at some scale, with the published numbers. Run the same command again to continue.

    Each table is a grid (`mar ablate NAME/SCALE`) in the folder mar/recipes/tables, at up to four scales: digits (minutes
    on two CPU cores), fashion (about an hour), gpu (half an hour of an H100), paper (the full recipe).

    Examples:

        mar reproduce

        mar reproduce rar-orders

        mar reproduce eonade-ensemble --scale gpu --data ~/data/binarized-mnist --dry-run

        mar reproduce rar-orders 'ordering+=[hilbert]' 'seed=[0,1,2,3]'

        mar reproduce rar-orders seed=0 --workers 2 --results results/rar-orders
    """
    from mar.experiments.shipped import find

    if name is None:
        _list_tables()
        return
    table = find(name, scale)
    folder = out or Path("runs") / "reproduce" / f"{table.name}-{table.scale}"
    given = _given(table, data, overrides or [])

    from mar.experiments.grid import read

    run_grid(read(table.grid, [*given, *(overrides or [])], folder), folder, execution)


def _given(table, data: Path | None, overrides: list[str]) -> list[str]:
    """Return the override of ``--data``.

    Raises:
        UserError: the table needs data and none are there, or it reads none.
    """
    import json

    from mar.core.errors import UserError

    given = {text.partition("=")[0] for text in overrides}
    missing = [
        key
        for key, needed in table.given.items()
        if needed and f"given.{key}" not in given and not (key == "data" and data is not None)
    ]
    if missing:
        wanted = " ".join("--data PATH" if key == "data" else f"given.{key}=…" for key in missing)
        raise UserError(f"{table.name} at the scale {table.scale} needs {wanted}: see the top of {table.path}")
    if data is None:
        return []
    if "data" not in table.given:
        raise UserError(
            f"{table.name} at the scale {table.scale} reads no data but the project's own: leave --data out"
        )
    if not data.expanduser().exists():
        raise UserError(f"--data: there is no {data}")
    return [f"given.data={json.dumps(str(data.expanduser()))}"]


def _list_tables() -> None:
    from mar.experiments.shipped import tables

    for name, scales in tables().items():
        print(f"{name}\n    {scales[0].header[0]}")
        for table in scales:
            needs = [key for key, needed in table.given.items() if needed]
            asked = "".join(" --data PATH" if key == "data" else f" given.{key}=…" for key in needs)
            print(f"    --scale {table.scale}{asked}: {table.header[1]}")


def status(
    out: Annotated[Path, typer.Argument(help="The folder of an ablation, or a run folder.")],
    json: Json = False,
) -> None:
    """Tell how far an ablation is, or a run.

    Examples:

        mar status runs/ablate-digits-networks

        mar status runs/digits
    """
    from mar.core.errors import UserError
    from mar.core.files import GRID, RUN
    from mar.core.table import Column, Table
    from mar.experiments.state import State, read_outlines, share, states_of, trained_iterations, wanted_iterations

    if (out / RUN).is_file():
        done, iterations = trained_iterations(out), wanted_iterations(out)
        line = f"{out}: {done} of {iterations} iterations"
        print(f'{{"iteration": {done}, "iterations": {iterations}}}' if json else line)
        return
    if not (out / GRID).is_file():
        raise UserError(f"{out} is neither an ablation (it has no {GRID}) nor a run (no {RUN})")
    outlines = read_outlines(out)
    if outlines is None:  # a folder from before outlines
        from mar.experiments.engine import Engine
        from mar.experiments.grid import stored

        outlines = Engine(stored(out), out).outlines
    found = states_of(out, outlines)
    columns = [
        Column[State]("cell", lambda s: s.name, words=True),
        Column[State]("state", lambda s: s.kind, words=True),
    ]
    columns += [
        Column[State]("share", lambda s: s.share, digits=2),
        Column[State]("", lambda s: s.text, words=True, key="text"),
    ]
    print_tables([Table(columns, found)], json, f"{100 * share(found):.0f} % done")


def run_grid(grid: GridFile, out: Path, execution: Execution) -> None:
    """Prepare, train, evaluate and report; or, with ``--dry-run``, list the cells and their cost.

    Raises:
        typer.Exit: some cells failed.
        UserError, Unsupported: the grid is impossible, or its preparation or its jobs failed. Stopped: by a signal.
    """
    from mar.core.progress import wide_console
    from mar.experiments.launch import prepare
    from mar.reports.publish import publish

    console = wide_console(stderr=execution.json)
    if grid.prepare:
        _check_options(grid)
    if execution.dry_run:
        _list_cells(grid, out, execution, console)
        return
    prepare(grid, out, lambda line: console.print(line, style="bold", highlight=False, markup=False))
    engine = _engine(grid, out, execution)
    _run(engine, execution, console)
    failed = _report(engine, console, execution.json)
    if execution.results is not None:
        kept = ", ".join(path.name for path in publish(engine, execution.results))
        console.print(f"kept in {execution.results}: {kept}", highlight=False, soft_wrap=True)
    if failed:
        line = f"{failed} of {len(engine.cells)} cells failed, see the table; --retry-failed tries them again"
        console.print(line, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _check_options(grid: GridFile) -> None:
    """Refuse a wrong option of any cell before hours of preparation. Raises UserError."""
    from mar import build

    for _, recipe in grid.recipes():
        build.resolve(recipe)


def _engine(grid: GridFile, out: Path, execution: Execution) -> Engine:
    """Return the engine, which shows progress bars. Raises UserError, Unsupported: the grid is impossible."""
    from mar.core.progress import bar
    from mar.experiments.engine import Engine
    from mar.experiments.launch import trainer

    return Engine(grid, out, bar, None if execution.slurm else trainer(execution.processes))


def _list_cells(grid: GridFile, out: Path, execution: Execution, console: Console) -> None:
    """List preparations, cells and costs. Cells that wait for a preparation are listed without costs.

    Raises:
        UserError, Unsupported: the grid is impossible, and nothing is to be prepared.
    """
    from mar.core.errors import MarError
    from mar.experiments.launch import pending

    todo = pending(grid, out)
    for command in grid.prepare:
        state = "prepare first" if command in todo else "prepared already"
        console.print(f"{state}: mar {command}", highlight=False, markup=False)
    try:
        engine = _engine(grid, out, execution)
    except MarError as error:
        if not todo:
            raise
        cells = grid.combinations()
        console.print(f"{len(cells)} cell(s), whose cost is known when that is done ({error}):", markup=False)
        console.print(*(", ".join(cell.settings.values()) or grid.name for cell in cells), sep="\n", markup=False)
        return
    _list_costs(engine, execution.workers, console)


def _list_costs(engine: Engine, workers: int, console: Console) -> None:
    import torch
    from rich.table import Table

    from mar.core.signals import cores
    from mar.metrics.speed import cost_key, seconds_per_iteration

    torch.set_num_threads(max(1, cores() // workers))
    table = Table(*("cell", "parameters", "plans", "iterations", "training, s", "state"))
    total, probes = 0.0, {}
    for cell, state in zip(engine.cells, engine.states(), strict=True):
        train, seconds = cell.recipe.train, None
        if cell.served:
            key = cost_key(cell.recipe)
            if key not in probes:
                probes[key] = seconds_per_iteration(cell.recipe, cell.data)
            seconds = train.iterations * probes[key]
            total += seconds * (1.0 - (state.share or 0.0))
        plans = ", ".join(cell.plans) if len(cell.plans) <= 3 else f"{len(cell.served)} plans"
        cost = "–" if seconds is None else f"{seconds:.0f}"
        work = f"{train.iterations} of {train.batch_size}"
        table.add_row(cell.name, f"{cell.n_parameters:,}", plans, work, cost, f"{state.kind}: {state.text}")
    console.print(table)
    console.print(f"about {total / workers / 60:.1f} min of training with {workers} worker(s); evaluation comes on top")


def _run(engine: Engine, execution: Execution, console: Console) -> None:
    """Write the grid, run all remaining work, taking over locks of other workers, then measure speed.

    Raises:
        UserError: the cluster takes no job, or its jobs left work undone. Stopped: by a signal.
    """
    from mar.experiments.launch import WorkerSpec, run_workers
    from mar.experiments.state import forget_failures

    work = WorkerSpec(engine.out.resolve(), execution.processes)
    if execution.retry_failed:
        forget_failures(engine.out, engine.outlines)
    if execution.slurm:
        _run_jobs(engine, execution.slurm, work, console)
        return
    engine.prepare()
    if execution.workers == 1:
        engine.work(go_on=_announcing(engine, console))
    else:
        with _watching(engine, console) as watch:
            codes = run_workers(work, execution.workers, watch)
            watch()
        if any(codes):
            console.print(f"some workers ended with {codes}: their logs are in {engine.out / 'logs'}", style="red")
    engine.work(wait=True)
    engine.measure_alone()


def _run_jobs(engine: Engine, slurm: list[str], work: WorkerSpec, console: Console) -> None:
    """Run in Slurm jobs; this process computes nothing. Ctrl-C leaves the jobs running."""
    from mar.core.errors import UserError
    from mar.experiments.slurm import Jobs, read_cluster
    from mar.experiments.state import share

    cluster = read_cluster(slurm)
    engine.prepare()
    with _watching(engine, console) as watch:
        jobs = Jobs(engine, cluster, watch)
        try:
            troubles = jobs.run(work)
        except KeyboardInterrupt:
            print(f"\nthe jobs go on. How far they are: mar status {engine.out}   the same command waits for them again"
                  f"\nto cancel them: {'; '.join(dict.fromkeys(job.cancelling for job in jobs.now))}")  # fmt: skip
            raise typer.Exit(130) from None
    for trouble in troubles:
        console.print(trouble, style="red")
    if share(engine.states()) < 1.0:
        raise UserError("the jobs have ended and some cells are unfinished: the same command submits what is left")


def _report(engine: Engine, console: Console, as_json: bool) -> int:
    """Write and print every table and picture; return the number of failed cells."""
    from mar.experiments.engine import assemble
    from mar.reports.columns import in_asked_unit
    from mar.reports.page import write_page
    from mar.reports.plots import write_pictures
    from mar.reports.tables import data_table, terminal, write_tables

    result: AblationResult = assemble(engine)
    result.save(engine.out / "result.json")
    result, out = in_asked_unit(result), engine.out
    written = [*write_tables(result, out), *write_pictures(result, out), write_page(result, out, out / "index.html")]
    if as_json:
        print(data_table(result).json())
    else:
        console.print(*terminal(result), sep="\n")
        console.print("wrote: " + "\n       ".join(map(str, written)), highlight=False, soft_wrap=True)
    return len({row.model for row in result.rows if row.errors})


def _announcing(engine: Engine, console: Console) -> Callable[[], bool]:
    """Return the function that the engine calls before each cell: it prints the progress and returns True."""
    from mar.experiments.state import Clock

    clock = Clock(engine.states())

    def go_on() -> bool:
        if len(engine.cells) > 1:
            console.print(_progress(engine.states(), clock), style="bold")
        return True

    return go_on


@contextmanager
def _watching(engine: Engine, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar of the whole grid; yield the function that updates it."""
    from rich.progress import BarColumn, Progress, TextColumn

    from mar.experiments.state import Clock, share

    clock = Clock(engine.states())
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as display:
        task = display.add_task("", total=1.0)

        def watch() -> None:
            now = engine.states()
            display.update(task, completed=share(now), description=_progress(now, clock))

        yield watch


def _progress(now: list[State], clock: Clock) -> str:
    """Return the number of finished cells and the time left."""
    done = sum(state.kind in ("done", "failed", "speed") for state in now)
    left = clock.left(now)
    todo = sum(state.share is not None for state in now)
    return f"{done} of {todo} cells" + ("" if left is None else f", about {left / 60:.0f} min left")

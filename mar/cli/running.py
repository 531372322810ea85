"""Running a grid, wherever it runs, and reporting on it: what the commands that run one share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from mar.experiments.engine import Clock, Engine, State
    from mar.experiments.grid import GridFile
    from mar.experiments.launch import WorkerSpec
    from mar.experiments.result import AblationResult


@dataclass(frozen=True)
class Where:
    """Where a grid runs.

    Attributes:
        workers: processes of this machine, each of which takes the next free cell; 1: this process.
        processes: that a cell is trained in.
        slurm: KEY=VALUE pairs (``mar.experiments.slurm``); empty: on this machine.

    Raises:
        UserError: a wrong pair, or workers and jobs together.
    """

    workers: int = 1
    processes: int = 1
    slurm: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.slurm:
            return
        from mar.core.errors import UserError
        from mar.experiments.slurm import read_cluster

        read_cluster(self.slurm)
        if self.workers > 1:
            raise UserError("--workers are processes of this machine: with --slurm it is jobs=N that says how many")


def engine_of(grid: GridFile, out: Path, where: Where) -> Engine:
    """The engine that ``run`` runs; it shows progress bars. Raises UserError, Unsupported: as Engine and trainer."""
    from mar.core.progress import bar
    from mar.experiments.engine import Engine
    from mar.experiments.launch import trainer

    return Engine(grid, out, bar, None if where.slurm else trainer(where.processes))


def run(engine: Engine, where: Where, retry_failed: bool, console: Console) -> None:
    """Write the grid, and do everything that is left, also what others hold; then the speeds.

    Raises:
        UserError: the cluster takes no job, or its jobs have left something undone. Stopped: by a signal.
    """
    from mar.experiments.engine import forget_failures
    from mar.experiments.launch import WorkerSpec

    work = WorkerSpec(engine.out.resolve(), where.processes)
    if retry_failed:
        forget_failures(engine)
    if where.slurm:
        _run_jobs(engine, where, work, console)
        return
    engine.prepare()
    if where.workers == 1:
        engine.work(go_on=_announcing(engine, console))
    else:
        _run_workers(engine, where.workers, work, console)
    engine.work(wait=True)
    engine.measure_alone()


def report(engine: Engine, console: Console) -> int:
    """Write and print everything; returns how many cells failed."""
    from mar.experiments.engine import assemble
    from mar.reports.curves import write_curves
    from mar.reports.orders_curve import write_orders_curve
    from mar.reports.page import write_page
    from mar.reports.pareto import write_pareto
    from mar.reports.steps_curve import write_steps_curve
    from mar.reports.table import terminal, write_tables
    from mar.reports.unit import in_asked_unit

    result: AblationResult = assemble(engine)
    result.save(engine.out / "result.json")
    result = in_asked_unit(result)
    writers = (write_curves, write_orders_curve, write_steps_curve, write_pareto)
    pictures = [write(result, engine.out) for write in writers]
    written = [*write_tables(result, engine.out), *filter(None, pictures), write_page(result, engine.out)]
    console.print(*terminal(result), sep="\n")
    print("wrote: " + "\n       ".join(map(str, written)))
    return len({row.model for row in result.rows if row.errors})


def _announcing(engine: Engine, console: Console) -> Callable[[], bool]:
    """Says before each cell how far the grid is; it always goes on."""
    from mar.experiments.engine import Clock, states

    clock = Clock(engine)

    def go_on() -> bool:
        if len(engine.cells) > 1:
            console.print(_progress(states(engine), clock), style="bold")
        return True

    return go_on


def _run_workers(engine: Engine, count: int, work: WorkerSpec, console: Console) -> None:
    from mar.experiments.launch import run_workers

    with _watching(engine, console) as watch:
        codes = run_workers(work, count, watch)
        watch()
    if any(codes):
        console.print(f"some workers ended with {codes}: their logs are in {engine.out / 'logs'}", style="red")


def _run_jobs(engine: Engine, where: Where, work: WorkerSpec, console: Console) -> None:
    """In jobs; nothing is computed in this process. Ctrl-C leaves them to themselves."""
    import typer

    from mar.core.errors import UserError
    from mar.experiments.engine import share, states
    from mar.experiments.slurm import Jobs, read_cluster

    cluster = read_cluster(where.slurm)
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
    if share(states(engine)) < 1.0:
        raise UserError("the jobs have ended and some cells are unfinished: the same command submits what is left")


@contextmanager
def _watching(engine: Engine, console: Console) -> Iterator[Callable[[], None]]:
    """A bar of the whole grid; what it yields brings it up to date."""
    from rich.progress import BarColumn, Progress, TextColumn

    from mar.experiments.engine import Clock, share, states

    clock = Clock(engine)
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console) as display:
        task = display.add_task("", total=1.0)

        def watch() -> None:
            now = states(engine)
            display.update(task, completed=share(now), description=_progress(now, clock))

        yield watch


def _progress(now: list[State], clock: Clock) -> str:
    """How many cells are finished, and the time that is left."""
    done = sum(state.kind in ("done", "failed", "speed") for state in now)
    left = clock.left(now)
    todo = sum(state.share is not None for state in now)
    return f"{done} of {todo} cells" + ("" if left is None else f", about {left / 60:.0f} min left")

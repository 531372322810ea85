"""``mar ablate``, ``mar reproduce`` and ``mar status``: run a grid, wherever it runs, report on it, tell how far it is."""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Callable, Container
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mar.cli.options import Device, Json, Texts, arg, grouped, opt, print_listing, print_tables
from mar.core.errors import MarError, UserError
from mar.core.files import GRID, RUN, runs_folder
from mar.core.progress import bar, wide_console
from mar.core.readers import read_json
from mar.core.table import Column, Table

if TYPE_CHECKING:
    from rich.console import Console

    from mar.experiments.engine import Engine
    from mar.experiments.grid import GridFile
    from mar.experiments.shipped import Table as PaperTable
    from mar.experiments.slurm import Cluster

Overrides = Annotated[Texts, arg("key=value pairs that change the grid or its recipes.")]


@dataclass(frozen=True)
class Execution:
    """Where a grid runs and where its results go."""

    workers: Annotated[int, opt("Processes of this machine; each takes the next free cell.", min=1)] = 1
    processes: Annotated[int, opt("Processes (torchrun) that train one cell, each on a GPU of its own.", min=1)] = 1
    slurm: Annotated[
        Texts, opt("Slurm jobs: sbatch's options in submitit's names, jobs=N, cluster=local.", metavar="KEY=VALUE")
    ] = None
    results: Annotated[Path | None, opt("Keep table, figures, page and provenance here, e.g. results/NAME.")] = None
    dry_run: Annotated[bool, opt("List the cells and their cost; train nothing.", "--dry-run")] = False
    retry_failed: Annotated[bool, opt("Compute failed cells again.", "--retry-failed")] = False
    device: Device = ""
    json: Json = False


@grouped
def ablate(
    name: Annotated[str, arg("A shipped ablation (digits, digits-networks) or a YAML grid file.")],
    execution: Execution,
    overrides: Overrides = None,
    out: Annotated[Path | None, opt("The folder; default ablate-NAME in runs, or in $MAR_RUNS.")] = None,
) -> None:
    """Train a grid of models, score them along its plans, report.

    Writes table.md, table.csv, table.tex, result.json, index.html, learning-curves.png and pareto.png. All rows are
    scored on the same images and noise; differences to the reference are paired. Run the same command again to resume.

    Examples:

        mar ablate digits train.iterations=300 'orderings=[raster,spiral:outward,random]' --out runs/quick
        mar ablate digits-networks 'only.network=[made,lstm]' --dry-run
        mar ablate my-grid.yaml --slurm partition=gpu --slurm gpus_per_node=1 --slurm time=240 --slurm jobs=8
    """
    from mar.cli.names import check_grid_keys
    from mar.experiments.shipped import default_out, grid_path

    check_grid_keys(grid_path(name), overrides or [])  # before torch is imported

    from mar.experiments.grid import read

    grid = read(name, overrides or [], out)
    run_grid(grid, out or default_out(grid.name), execution)


@grouped
def reproduce(
    execution: Execution,
    name: Annotated[str | None, arg("A table; without a name, all tables are listed.")] = None,
    overrides: Overrides = None,
    scale: Annotated[str | None, opt("digits, fashion, gpu or paper; default the table's smallest.")] = None,
    data: Annotated[Path | None, opt("Folder of the data set of the table.")] = None,
    out: Annotated[Path | None, opt("The folder; default reproduce/NAME-SCALE in runs, or in $MAR_RUNS.")] = None,
) -> None:
    """Make a table of a paper, beside the published numbers.

    A table is a grid (`mar ablate NAME/SCALE`) at up to four scales: digits (minutes to an hour and a half on two CPU
    cores), fashion (about an hour), gpu (half an hour of an H100), paper (the full recipe). Run the same command again
    to resume.

    Examples:

        mar reproduce
        mar reproduce eonade-ensemble --scale gpu --data ~/data/binarized-mnist --dry-run
        mar reproduce rar-orders 'ordering+=[hilbert]' seed=0 --workers 2 --results results/rar-orders
    """
    from mar.cli.names import check_grid_keys
    from mar.experiments.shipped import find, tables

    if name is None:
        panels = {
            f"{title}: {scales[0].header[0]}": [(f"--scale {one.scale}{_needs(one)}", one.header[1]) for one in scales]
            for title, scales in tables().items()
        }
        print_listing(panels)
        return
    table = find(name, scale)
    check_grid_keys(table.path, overrides or [])
    given = [*_data_override(table, data, overrides or []), *(overrides or [])]
    folder = out or runs_folder() / "reproduce" / f"{table.name}-{table.scale}"

    from mar.experiments.grid import read

    run_grid(read(table.grid, given, folder), folder, execution)


def _needs(table: PaperTable, given: Container[str] = ()) -> str:
    """Return the options that a table needs beside the ``given`` values."""
    missing = [key for key, needed in table.given.items() if needed and f"given.{key}" not in given]
    return "".join(" --data PATH" if key == "data" else f" given.{key}=…" for key in missing)


def _data_override(table: PaperTable, data: Path | None, overrides: list[str]) -> list[str]:
    """Return the override of ``--data``. Raises UserError: the table lacks a given value, or reads no data."""
    what = f"{table.name} at the scale {table.scale}"
    given = {text.partition("=")[0] for text in overrides} | ({"given.data"} if data is not None else set())
    if missing := _needs(table, given):
        raise UserError(f"{what} needs{missing}: see the top of {table.path}")
    if data is None:
        return []
    if "data" not in table.given:
        raise UserError(f"{what} reads no data but the project's own: leave --data out")
    if not data.exists():
        raise UserError(f"--data: there is no {data}")
    return [f"given.data={json_format.dumps(str(data))}"]


def status(folder: Annotated[Path, arg("The folder of an ablation, or a run folder.")], json: Json = False) -> None:
    """Show progress, scores and next command of a run or a grid.

    Examples:

        mar status runs/ablate-digits-networks
    """
    from mar.experiments.state import State, read_outlines, share

    if (folder / RUN).is_file():
        print_run(folder, json)
        return
    if not (folder / GRID).is_file():
        raise UserError(f"{folder} is neither an ablation (it has no {GRID}) nor a run (no {RUN})")
    outlines = read_outlines(folder)
    if outlines is None:  # a folder from before outlines
        from mar.experiments.engine import Engine
        from mar.experiments.grid import stored

        outlines = Engine(stored(folder), folder).outlines
    found = [outline.state(folder) for outline in outlines]
    done = share(found)
    columns = [
        Column[State]("cell", lambda state: state.name, words=True),
        Column[State]("state", lambda state: state.kind, words=True, drop=1),
        Column[State]("share", lambda state: state.share, digits=2, drop=3),
        Column[State]("", lambda state: state.text, words=True, key="text", drop=2),
        Column[State]("scores", lambda state: state.scores or None, words=True),
    ]
    again = " --retry-failed" if any(state.kind == "failed" for state in found) else ""
    following = f"mar ablate {folder / GRID} --out {folder}{again}" if done < 1.0 or again else f"mar report {folder}"
    print_tables([Table(columns, found)], json, f"{100 * done:.0f} % done", f"next: {following}")


def print_run(folder: Path, json: bool = False) -> None:
    """Print a run's progress, its scores and the next command."""
    from mar.experiments.state import run_state

    found = run_state(folder)
    if json:
        print(json_format.dumps(found))
        return
    done, iterations, loss, nats, bits, rate, left = found.values()
    print(f"{folder}: {done:,} of {iterations:,} iterations" + ("" if loss is None else f", loss {loss:.4f}"))
    if nats is not None:
        print(f"validation: {nats:.4f} nats/token" + ("" if bits is None else f", {bits:.4f} bits/dim"))
    if done < iterations:
        print("" if left is None else f"{rate:.0f} examples/s, about {left / 60:.0f} min left at that speed\n", end="")
        print(f"next: mar train {folder / RUN} --out {folder}")
        return
    for file in sorted((folder / "scores").glob("nll-*.json")):
        score = read_json(file, "a score")
        value, unit = score.get("bits_per_dim"), "bits/dim"
        value, unit = (score.get("nats_per_image"), "nats") if value is None else (value, unit)
        if value is not None:
            print(f"NLL along {score['plan']}: {value:.4f} {unit} ({score['n_images']} {score['split']} examples)")
    print(f"next: mar sample {folder}   mar score nll {folder}")


def run_grid(grid: GridFile, out: Path, execution: Execution) -> None:
    """Prepare, train, evaluate and report; or, with ``--dry-run``, list the cells and their cost.

    Raises UserError, Unsupported: the grid is impossible, its preparation or its jobs failed. typer.Exit: cells failed.
    """
    from mar import build
    from mar.experiments.engine import Engine
    from mar.experiments.launch import prepare, trainer
    from mar.experiments.slurm import read_cluster

    cluster = read_cluster(execution.slurm) if execution.slurm else None
    if cluster and execution.workers > 1:
        raise UserError("--workers starts processes of this machine: with --slurm, jobs=N sets their number")
    console = wide_console(stderr=execution.json)
    for _, recipe in grid.recipes() if grid.prepare else ():  # refuse a wrong option before hours of preparation
        build.resolve(recipe)

    def plan() -> Engine:
        return Engine(grid, out, bar, None if cluster else trainer(execution.processes))

    if execution.dry_run:
        _list_cells(grid, out, plan, execution.workers, console)
        return
    with redirect_stdout(sys.stderr) if execution.json else nullcontext():  # the JSON stands alone
        prepare(grid, out, lambda line: console.print(line, style="bold", highlight=False, markup=False))
        engine = plan()
        _run(engine, execution, cluster, console)
    failed = _report(engine, console, execution.json)
    if execution.results is not None:
        from mar.reports.publish import publish

        kept = ", ".join(path.name for path in publish(engine, execution.results))
        console.print(f"kept in {execution.results}: {kept}", highlight=False, soft_wrap=True)
    if failed:
        line = f"{failed} of {len(engine.cells)} cells failed, see the table; --retry-failed tries them again"
        console.print(line, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _list_cells(grid: GridFile, out: Path, plan: Callable[[], Engine], workers: int, console: Console) -> None:
    """List preparations and cells, with their costs unless they wait for a preparation. Raises as ``run_grid``."""
    from mar.core.processes import threads
    from mar.core.signals import cores
    from mar.experiments.launch import pending
    from mar.metrics.speed import cost_key, seconds_per_iteration

    todo = pending(grid, out)
    for command in grid.prepare:
        state = "prepare first" if command in todo else "prepared already"
        console.print(f"{state}: mar {command}", highlight=False, markup=False)
    try:
        engine = plan()
    except MarError as error:
        if not todo:
            raise
        cells = grid.combinations()
        console.print(f"{len(cells)} cell(s), whose cost is known when that is done ({error}):", markup=False)
        console.print(*(", ".join(cell.settings.values()) or grid.name for cell in cells), sep="\n", markup=False)
        return
    heads, rows = ("cell", "parameters", "plans", "iterations", "training, s", "state"), []
    drops = {"iterations": 3, "parameters": 2, "plans": 1}
    total, probes = 0.0, {}
    for cell, state in zip(engine.cells, engine.states(), strict=True):
        train, cost = cell.recipe.train, "–"
        if cell.served:
            key = cost_key(cell.recipe)
            if key not in probes:
                with threads(max(1, cores() // workers)):
                    probes[key] = seconds_per_iteration(cell.recipe, cell.data)
            seconds = train.iterations * probes[key]
            total, cost = total + seconds * (1.0 - (state.share or 0.0)), f"{seconds:.0f}"
        plans = ", ".join(map(str, cell.plans)) if len(cell.plans) <= 3 else f"{len(cell.served)} plans"
        work = f"{train.iterations} of {train.batch_size}"
        rows.append((cell.name, f"{cell.n_parameters:,}", plans, work, cost, f"{state.kind}: {state.text}"))
    columns = [
        Column[tuple[str, ...]](head, lambda row, k=k: row[k], words=True, drop=drops.get(head, 0))
        for k, head in enumerate(heads)
    ]
    console.print(Table(columns, rows))
    console.print(f"about {total / workers / 60:.1f} min of training with {workers} worker(s); evaluation comes on top")
    if (load := os.getloadavg()[0]) > 0.5 * cores():  # the probe itself raises the load little
        console.print(
            f"the machine is busy (load {load:.1f} on {cores()} cores): beside other programs it takes longer"
        )


def _run(engine: Engine, execution: Execution, cluster: Cluster | None, console: Console) -> None:
    """Run all remaining work, here or in Slurm jobs, taking over locks of other workers; then measure speed.

    Raises UserError: the cluster takes no job, or its jobs left work undone. Stopped: by a signal.
    """
    from mar.experiments.launch import WorkerSpec, run_workers
    from mar.experiments.slurm import Jobs
    from mar.experiments.state import forget_failures, share

    work, tell = WorkerSpec(engine.out.resolve(), execution.processes), _telling(engine, console)
    if execution.retry_failed:
        forget_failures(engine.out, engine.outlines)
    engine.prepare()
    if cluster is not None:
        jobs = Jobs(engine, cluster, tell)
        try:
            troubles = jobs.run(work)
        except KeyboardInterrupt:  # the jobs go on
            print(f"\nthe jobs go on. How far they are: mar status {engine.out}   the same command waits for them again"
                  f"\nto cancel them: {'; '.join(dict.fromkeys(job.cancelling for job in jobs.now))}")  # fmt: skip
            raise typer.Exit(130) from None
        for trouble in troubles:
            console.print(trouble, style="red")
        if share(engine.states()) < 1.0:
            raise UserError("the jobs have ended and some cells are unfinished: the same command submits what is left")
        return
    if (workers := min(execution.workers, len(engine.cells))) == 1:
        engine.work(go_on=tell)
    elif any(codes := run_workers(work, workers, tell)):
        console.print(f"some workers ended with {codes}: their logs are in {engine.out / 'logs'}", style="red")
    engine.work(wait=True)
    engine.measure_alone()


def _telling(engine: Engine, console: Console) -> Callable[[], bool]:
    """Return the function that prints the finished cells and the time left when they have changed, and returns True."""
    from mar.experiments.state import Clock, share

    clock, told = Clock(engine.states()), set[str]()

    def tell() -> bool:
        now = engine.states()
        done, left = sum(state.kind in ("done", "failed", "speed") for state in now), clock.left(now)
        line = f"{done} of {sum(state.share is not None for state in now)} cells, {100 * share(now):.0f} %"
        if line not in told and len(engine.cells) > 1:
            console.print(line + ("" if left is None else f", about {left / 60:.0f} min left"), style="bold")
        told.add(line)
        return True

    return tell


def _report(engine: Engine, console: Console, as_json: bool) -> int:
    """Write and print every table and picture; return the number of failed cells."""
    from mar.experiments.engine import assemble
    from mar.reports.columns import in_asked_unit
    from mar.reports.page import write_page
    from mar.reports.plots import write_pictures
    from mar.reports.tables import data_table, terminal, write_tables

    result, out = assemble(engine), engine.out
    result.save(out / "result.json")
    result = in_asked_unit(result)
    written = [*write_tables(result, out), *write_pictures(result, out), write_page(result, out, out / "index.html")]
    if as_json:
        print(data_table(result).json())
    else:
        console.print(*terminal(result), sep="\n")
        console.print("wrote: " + "\n       ".join(map(str, written)), highlight=False, soft_wrap=True)
    return len({row.model for row in result.rows if row.errors})

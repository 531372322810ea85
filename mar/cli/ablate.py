"""``mar ablate`` and ``mar status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mar.cli.grids import DryRun, Overrides, Processes, Results, RetryFailed, Slurm, Workers, list_cells, make_table
from mar.cli.running import Where

# ruff: noqa: UP045 - typer reads Optional


def ablate(
    name: Annotated[str, typer.Argument(help="A shipped ablation (digits, digits-networks) or a YAML grid file.")],
    overrides: Overrides = None,
    out: Annotated[Optional[Path], typer.Option(help="The folder; default runs/ablate-NAME.")] = None,
    workers: Workers = 1,
    processes: Processes = 1,
    slurm: Slurm = None,
    results: Results = None,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
) -> None:
    """Train the models of a grid, score them under its plans, and write the table and the page. The same command goes on.

    Writes table.md, table.csv, table.tex, result.json, index.html, learning-curves.png and pareto.png. Every row is scored
    on the same images and noise; the differences to the reference are paired.

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
    from mar.experiments.grid import default_out, read

    grid = read(name, overrides or [], out)
    folder, where = out or default_out(grid.name), Where(workers, processes, tuple(slurm or ()))
    if dry_run:
        list_cells(grid, folder, where)
    else:
        make_table(grid, folder, where, retry_failed, results)


def status(
    out: Annotated[Path, typer.Argument(help="The folder of an ablation, or a run folder.")],
) -> None:
    """How far an ablation is, or a run.

    Examples:

        mar status runs/ablate-digits-networks

        mar status runs/digits
    """
    from mar.core.errors import UserError
    from mar.core.progress import wide_console
    from mar.experiments.engine import Engine, share, states
    from mar.experiments.launch import read_grid
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


def _states_table(found):
    from rich.table import Table

    colours = {"done": "green", "failed": "red", "refused": "dim", "waiting": "dim"}
    table = Table("cell", "state", "")
    for state in found:
        style = colours.get(state.kind, "")
        table.add_row(state.name, state.kind, state.text, style=style)
    return table

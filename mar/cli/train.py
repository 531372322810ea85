"""``mar train`` and ``mar recipes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mar.cli.options import Json, Overrides, arg, opt, print_tables


def train(
    recipe: Annotated[str, arg("A shipped recipe's name (see `mar recipes`) or a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, opt("The run folder; default runs/NAME.")] = None,
) -> None:
    """Train a model. Run the same command again to resume a run that was stopped or killed.

    Examples:

        mar train digits
        mar train digits ordering=spiral train.objective=next_set --out runs/spiral
        mar train mnist-binary data.path=~/data/binarized-mnist train.iterations=20000
        torchrun --nproc_per_node 2 -m mar train digits
    """
    from mar import config
    from mar.cli.names import check_recipe

    chosen = config.read(recipe, overrides or [])
    check_recipe(chosen)

    from mar.core.processes import Processes
    from mar.run import train as train_run
    from mar.training.run_folder import RunFolder

    folder = out or Path("runs") / chosen.name
    processes = Processes(RunFolder(folder).original_setting(chosen, "precision"), chosen.train.parallel)
    train_run(chosen, folder, processes)
    if processes.is_main:
        print(f"done: {folder}\nnext: mar sample {folder}   mar score nll {folder} ")
    processes.end()


def recipes(json: Json = False) -> None:
    """List the shipped recipes with their commands, costs and scores.

    Examples:

        mar recipes
        mar recipes --json
    """
    from mar.config import recipe_names, recipe_path
    from mar.core.table import Column, Table

    lines = {name: recipe_path(name).read_text().splitlines() for name in recipe_names()}
    headers = {name: [line[1:].strip() for line in found if line.startswith("#")] for name, found in lines.items()}
    if json:
        columns = [Column[str]("recipe", str), Column[str]("description", lambda name: " ".join(headers[name]))]
        print_tables([Table(columns, list(headers))], json)
        return
    for name, header in headers.items():
        print(f"{name}\n    " + "\n    ".join(header))

"""``mar train`` and ``mar recipes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name (see `mar recipes`) or a YAML file.")],
    overrides: Annotated[Optional[list[str]], typer.Argument(help="key=value pairs that change the recipe.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="The run folder; default runs/NAME.")] = None,  # noqa: UP045
) -> None:
    """Train a model. The same command resumes a run that was stopped or killed.

    Examples:

        mar train digits

        mar train digits ordering=spiral train.objective=next_set --out runs/spiral

        mar train mnist-binary data.path=~/data/binarized-mnist train.iterations=20000

        torchrun --nproc_per_node 2 -m mar train digits
    """
    from mar import config

    chosen = config.read(recipe, overrides or [])  # a mistyped key is refused before torch is imported
    from mar.core.processes import Processes
    from mar.run import train as train_run
    from mar.training.run_folder import RunFolder

    folder = out or Path("runs") / chosen.name
    processes = Processes(RunFolder(folder).original_setting(chosen, "precision"), chosen.train.parallel)
    train_run(chosen, folder, processes)
    if processes.is_main:
        print(f"done: {folder}\nnext: mar sample {folder}   mar score {folder} --nll")
    processes.end()


def recipes() -> None:
    """List the shipped recipes, with what each costs and reaches.

    Example:

        mar recipes
    """
    from mar.config import recipe_names, recipe_path

    for name in recipe_names():
        header = [line[1:].strip() for line in recipe_path(name).read_text().splitlines() if line.startswith("#")]
        print(f"{name}\n    " + "\n    ".join(header))

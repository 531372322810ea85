"""``mar train`` and ``mar recipes``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from mar.cli.options import Device, Json, Overrides, Texts, arg, opt, print_listing, print_tables
from mar.core.errors import UserError
from mar.core.table import Column, Table


def train(
    recipe: Annotated[str, arg("A shipped recipe's name (see `mar recipes`) or a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, opt("The run folder; default NAME in runs, or in $MAR_RUNS.")] = None,
    device: Device = "",
    ignore_memory: Annotated[bool, opt("Start although the model may not fit the memory.", "--ignore-memory")] = False,
) -> None:
    """Train a model, or resume a run that was stopped or killed.

    Examples:

        mar train digits
        mar train digits ordering=spiral train.objective=next_set --out runs/spiral
        torchrun --nproc_per_node 2 -m mar train digits
    """
    from mar import config
    from mar.cli.names import check_recipe
    from mar.core.files import runs_folder

    chosen = config.read(recipe, overrides or [])
    check_recipe(chosen)

    from mar.cli.ablate import print_run
    from mar.core.processes import Processes
    from mar.run import train as train_run
    from mar.training.run_folder import RunFolder

    fid = None
    if chosen.train.fid_every:
        from mar.metrics.fid import while_training as fid
    folder = out or runs_folder() / chosen.name
    processes = Processes(RunFolder(folder).original_setting(chosen, "precision"), chosen.train.parallel)
    train_run(chosen, folder, processes, ignore_memory=ignore_memory, fid=fid)
    if processes.is_main:
        print_run(folder)
    processes.end()


def recipes(
    words: Annotated[Texts, arg("The name of a recipe; or words that its name or description has.")] = None,
    json: Json = False,
) -> None:
    """List the shipped recipes, those without a download first.

    Examples:

        mar recipes causal transformer
        mar recipes digits
    """
    from mar.config import recipe_names, recipe_path
    from mar.experiments.shipped import header

    asked = " ".join(words or ()).lower()
    comments = {
        name: [line[1:].strip() for line in recipe_path(name).read_text().splitlines() if line.startswith("#")]
        for name in recipe_names()
    }
    found = {name: text for name, text in comments.items() if all(w in f"{name} {text}".lower() for w in asked.split())}
    found = {asked: comments[asked]} if asked in comments else found
    if not found:
        raise UserError(f"no recipe has {asked!r} in its name or description: mar recipes lists all")
    if json:
        columns = [Column[str]("recipe", str), Column[str]("description", lambda name: " ".join(found[name]))]
        print_tables([Table(columns, list(found))], json)
    elif len(found) == 1:
        print(*next(iter(found.values())), sep="\n")
    else:
        gpus = [] if asked else [name for name in found if name.startswith("imagenet256-")]
        free, data = list[tuple[str, str]](), list[tuple[str, str]]()
        for name in [name for name in found if name not in gpus]:
            command, about, time = header(recipe_path(name))
            shown = [re.split(r"[.;] (?=[A-Za-z])", about)[0], re.split(r"[,;.] ", time)[0]]
            (data if "=" in command else free).append(
                (name, "\n".join(one[:1].upper() + one[1:].removesuffix(".") for one in shown))
            )
        print_listing({"Without a download: mar train NAME": free, "With data: mar train NAME data.path=PATH": data})
        print("\nAll that a recipe says: mar recipes NAME")
        if gpus:
            print(f"{len(gpus)} recipes of ImageNet 256x256 for many GPUs: mar recipes imagenet256")

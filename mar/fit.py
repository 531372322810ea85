"""Train a recipe in a run folder, from wherever the folder stands."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import torch

from mar import build
from mar.config import Recipe
from mar.data.base import Data, spread
from mar.distributed import Processes
from mar.model import Model
from mar.training import blocks
from mar.training.loop import Trainer, check
from mar.training.run_folder import RunFolder


def train(recipe: Recipe, path: str | Path, processes: Processes | None = None) -> None:
    """Train ``recipe`` in the folder ``path``, or go on where it stands.

    Raises:
        UserError: the recipe is impossible, or the folder belongs to another run or another process.
    """
    folder = RunFolder(path)
    processes = processes or Processes(folder.began_with(recipe, "precision"), recipe.train.parallel)
    recipe, data, model = processes.each(lambda: _built(recipe, processes))
    compiles = folder.began_with(recipe, "compile")
    if compiles == "auto":
        compiles = blocks.compiles(model, processes.device)
    computes = {"precision": processes.precision, "compile": compiles, "processes": processes.world}
    with ExitStack() as stack:
        processes.first(lambda: stack.enter_context(folder.locked()))
        said = processes.first(lambda: folder.start(recipe, data.about, computes))
        model.to(processes.device).tokenizer.fit(to_measure(data))  # an autoencoder encodes thousands of images
        for note in (*said, *model.tokenizer.notes) if processes.is_main else ():
            print(f"note: {note}")
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"compile": compiles})})
        parts = build.ordering(recipe), build.partition(recipe), build.mask_ratio(recipe)
        Trainer(recipe, model, data, *parts, folder, processes).run()


def _built(recipe: Recipe, processes: Processes) -> tuple[Recipe, Data, Model]:
    recipe = build.resolve(recipe)
    data = build.data(recipe)
    model = build.model(recipe, data)
    check(recipe, model, processes)
    return recipe, data, model


def to_measure(data: Data, limit: int = 10_000) -> Iterable[torch.Tensor]:
    """Examples of the training split, for what a tokenizer measures; each batch is spread over the whole split, whose
    first examples may be of one class."""
    index = spread(len(data.train), limit)
    batches = -(-len(index) // 500)
    for first in range(batches):
        yield data.train.batch(index[first::batches])[0]

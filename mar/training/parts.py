"""The parts of a recipe, built and checked once by ``mar.build.assemble`` and passed to training, runs and metrics."""

from __future__ import annotations

from dataclasses import dataclass

from mar.config import Recipe
from mar.data.base import About, Data
from mar.model.model import Model
from mar.training.objectives import Objective
from orderings import Ordering, Partition


@dataclass(frozen=True)
class Parts:
    """Everything a recipe names.

    Attributes:
        data: the data set, or only its metadata where a run is loaded to sample or score.
    """

    recipe: Recipe
    data: Data | About
    model: Model
    ordering: Ordering
    partition: Partition
    objective: Objective

"""The parts of a recipe. ``mar.build.assemble`` builds and checks them once; training, runs and metrics share them.

A file of its own, since ``mar.build`` imports what trains the parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from mar.config import Recipe
from mar.data.base import About, Data
from mar.model.model import Model
from mar.training.objectives import Objective
from orderings import Ordering, Partition


@dataclass(frozen=True)
class Parts:
    """Everything a recipe names. ``source``: the data set, or only its metadata in a run that samples or scores."""

    recipe: Recipe
    source: Data | About
    model: Model
    ordering: Ordering
    partition: Partition
    objective: Objective

    @property
    def data(self) -> Data:
        """The data set, of parts that were assembled with it."""
        assert isinstance(self.source, Data)
        return self.source

    @property
    def about(self) -> About:
        return self.source.about if isinstance(self.source, Data) else self.source

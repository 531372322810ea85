"""Random orders: uniform, one fixed sample, mixtures, annealing.

B batch · L tokens · S component orderings
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from orderings.base import FixedOrdering, Ordering, Partition, Source, option, shuffle
from orderings.grid import Grid, InvalidRequest, torch
from orderings.scans import Raster


@dataclass(frozen=True)
class Random(Ordering):
    """Uniformly random, anew for each image: the order of any-order models and of MAR."""

    random: ClassVar[bool] = True
    time: ClassVar[bool] = True

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return shuffle(generator.uniform(grid.size))


@dataclass(frozen=True)
class Learned(Random):
    """Chosen by a policy trained with the model (LO-ARM); uniformly random without one.

    Plans do not depend on a model: the ranks are random, and callers that use the policy take only the set sizes.
    """

    learned: ClassVar[bool] = True


@dataclass(frozen=True)
class FixedRandom(FixedOrdering):
    """One random order for all images, chosen by ``seed``."""

    seed: int = option(0, least=0, most=2**32 - 1)
    whole: ClassVar[bool] = True

    def rank(self, grid: Grid) -> torch.Tensor:
        # NumPy guarantees the streams of RandomState: a seed always names the same order
        return torch.from_numpy(np.random.RandomState(self.seed).permutation(len(grid))).long()


@dataclass(frozen=True)
class Mixture(Ordering):
    """Each image draws one of several orderings.

    Its likelihood is that of the mixture only when averaged over the components as probabilities.
    """

    orderings: tuple[Ordering, ...] = (Raster(), Random())
    weights: tuple[float, ...] = ()  # relative; none: equal
    random: ClassVar[bool] = True
    time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.orderings:
            raise InvalidRequest("mixture: name at least one ordering, as in mixture:raster+spiral")
        if self.weights and len(self.weights) != len(self.orderings):
            raise InvalidRequest(f"mixture: {len(self.weights)} weights for {len(self.orderings)} orderings")
        if self.weights and (min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf")):
            raise InvalidRequest("mixture: weights are not negative, not all zero, and their sum is finite")

    @property
    def components(self) -> tuple[Ordering, ...]:
        chosen = () if len(set(self.weights)) > 1 else self.orderings
        return () if any(ordering.random for ordering in chosen) else chosen

    def at(self, progress: float) -> Mixture:
        return replace(self, orderings=tuple(ordering.at(progress) for ordering in self.orderings))

    def among(self, partition: Partition, grid: Grid) -> Mixture:
        return replace(self, orderings=tuple(ordering.among(partition, grid) for ordering in self.orderings))

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        choice_B1 = generator.at("choice").uniform(1)
        weight_S = torch.tensor(self.weights or (1.0,) * len(self.orderings), dtype=torch.float64)
        edge_S = (weight_S.cumsum(0) / weight_S.sum()).to(choice_B1.device)
        edge_S[weight_S.nonzero().max() :] = 1.0  # rounding must not open a gap behind the last component
        chosen_B1 = torch.searchsorted(edge_S, choice_B1.double(), right=True)
        rank_BL = torch.empty(batch, len(grid), dtype=torch.int64, device=choice_B1.device)
        for s, ordering in enumerate(self.orderings):
            component_BL = ordering.ranks(grid, batch, generator.at(f"component {s}"))
            rank_BL = torch.where(chosen_B1 == s, component_BL.to(rank_BL.device), rank_BL)
        return rank_BL


@dataclass(frozen=True)
class Annealed(Ordering):
    """Random orders that turn into ``target`` in the course of training (RAR, arXiv 2411.00776, section 3.3).

    A row's order is uniformly random with a probability that is 1 until ``start``, falls linearly and is 0 from ``end``
    on (fractions of training; RAR's best: epochs 200 and 300 of 400).
    """

    target: Ordering = field(default=Raster())
    start: float = 0.5
    end: float = 0.75
    progress: float = option(1.0, least=0, most=1)  # where training stands; set by ``at``
    time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise InvalidRequest(f"annealed: 0 <= start <= end <= 1, not start={self.start:g} and end={self.end:g}")
        object.__setattr__(self, "random", self.probability > 0.0 or self.target.random)

    @property
    def probability(self) -> float:
        """The probability that a row's order is random, now."""
        if self.progress >= self.end:
            return 0.0
        return 1.0 if self.progress < self.start else 1.0 - (self.progress - self.start) / (self.end - self.start)

    def at(self, progress: float) -> Annealed:
        return replace(self, progress=progress, target=self.target.at(progress))

    def among(self, partition: Partition, grid: Grid) -> Annealed:
        return replace(self, target=self.target.among(partition, grid))

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        target_BL = self.target.ranks(grid, batch, generator.at("target"))
        if self.probability == 0.0:
            return target_BL
        random_BL = Random().ranks(grid, batch, generator.at("random"))
        choice_B1 = generator.at("choice").uniform(1)
        return torch.where(choice_B1 < self.probability, random_BL, target_BL.to(random_BL.device))

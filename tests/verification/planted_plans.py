"""Orderings and partitions with one bug each, which verification must catch.

B batch · L tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from orderings import ABSENT, GIVEN, Grid, Ordering, Partition
from orderings.base import Source


@dataclass(frozen=True)
class NoPermutation(Ordering):
    """Every token twice, on grids of even length."""

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return (torch.arange(len(grid)) // 2 * 2).clamp(max=len(grid) - 1).expand(batch, -1)


@dataclass(frozen=True)
class SortedWithNeighbours(Ordering):
    """A random order that depends on the rest of the batch."""

    random: ClassVar[bool] = True

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        uniform_BL = generator.uniform(len(grid))
        return (uniform_BL - uniform_BL.mean(0)).argsort(1).argsort(1)


@dataclass(frozen=True)
class SecretlyRandom(Ordering):
    """Draws, but says that it does not."""

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return generator.uniform(len(grid)).argsort(1).argsort(1)


@dataclass(frozen=True)
class Unseeded(Ordering):
    """Draws from the global state."""

    random: ClassVar[bool] = True

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return torch.rand(batch, len(grid)).argsort(1).argsort(1)


@dataclass(frozen=True)
class EmptyStep(Partition):
    """Counts steps by twos."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.ones(n, dtype=torch.int64)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        step_BL = super().steps(rank_BL, grid)
        return torch.where((step_BL > GIVEN) & (step_BL < ABSENT), 2 * step_BL, step_BL)


@dataclass(frozen=True)
class EmptySet(Partition):
    """Its first set is empty."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.tensor([0, n])


@dataclass(frozen=True)
class LosesTheRemainder(Partition):
    """Sets of four, and no more."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.full((max(1, n // 4),), min(4, n))


@dataclass(frozen=True)
class GeneratesPadding(Partition):
    """Gives absent tokens a step."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.ones(n, dtype=torch.int64)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        step_BL = super().steps(rank_BL, grid)
        return torch.where(step_BL == ABSENT, len(grid), step_BL)

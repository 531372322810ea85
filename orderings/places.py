"""Partitions by place: where a set ends depends on where its tokens lie.

B batch · L tokens · R regions
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from orderings.base import ABSENT, GIVEN, Partition, argsort_whole, option
from orderings.blocks import block_of, check_size, region_of
from orderings.grid import Grid, torch


@dataclass(frozen=True)
class PlaceSets(Partition):
    """Sets that follow a number of each token: implement ``keys``, and ``starts`` where a change is no new set."""

    def keys(self, grid: Grid) -> torch.Tensor:
        """Return key_L (int64), not negative."""
        raise NotImplementedError

    def starts(self, key_BL: torch.Tensor, scored_BL: torch.Tensor) -> torch.Tensor:
        """Return new_BL (bool), True where a set begins but for the first one; tokens stand in order of rank."""
        new_BL = torch.zeros_like(scored_BL)
        new_BL[:, 1:] = scored_BL[:, 1:] & scored_BL[:, :-1] & (key_BL[:, 1:] != key_BL[:, :-1])
        return new_BL

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        scored_BL = (rank_BL > GIVEN) & (rank_BL < ABSENT)
        order_BL = argsort_whole(rank_BL + 1)  # given tokens first, absent ones last
        key_BL = self.keys(grid).to(rank_BL.device)[order_BL]
        new_BL = self.starts(key_BL, scored_BL.gather(1, order_BL))
        step_BL = torch.empty_like(rank_BL).scatter_(1, order_BL, new_BL.cumsum(1))
        return torch.where(scored_BL, step_BL, rank_BL)


@dataclass(frozen=True)
class BlockSets(PlaceSets):
    """A new set whenever the block changes along the order; with the ordering ``blocks`` of that size, a set per block.

    Blocks are cut as the ordering ``blocks`` cuts them. Under other orders a block may be entered more than once, and
    every visit is a set of its own.
    """

    size: tuple[int, ...] = option((4,), separator="x")
    test_options: ClassVar[dict[str, Any]] = {"size": (2,)}

    def __post_init__(self) -> None:
        check_size(self.size)

    def keys(self, grid: Grid) -> torch.Tensor:
        return block_of(self.size, grid)[0]


@dataclass(frozen=True)
class FrameSets(PlaceSets):
    """A new set whenever the frame changes; with the ordering ``frames``, a set per frame. A picture is one frame."""

    def keys(self, grid: Grid) -> torch.Tensor:
        return torch.arange(len(grid)) // len(grid.frame)


@dataclass(frozen=True)
class Diagonals(PlaceSets):
    """A new set whenever the anti-diagonal changes; with the ordering ``diagonal``, a set per diagonal.

    Neighbouring autoregression (NAR, arXiv 2503.10696) generates ``diagonal/diagonals``, H + W − 1 steps of tokens
    equally far from the first one. The channels of a pixel share its set.
    """

    def keys(self, grid: Grid) -> torch.Tensor:
        place_LD, first = grid.coordinates(), int(grid.time)
        frame_L = place_LD[:, 0] * sum(grid.shape) * first
        return frame_L + place_LD[:, first : first + 2].sum(1)


@dataclass(frozen=True)
class RegionSets(PlaceSets):
    """At most one token of each region in a set: a set ends before a region that it already has.

    With the ordering ``regions`` of that count, sets of one token per region. The tokens of the first set are generated
    one at a time (PAR, arXiv 2412.15119: each depends on the others), unless ``start=parallel``.
    """

    count: tuple[int, ...] = option((2,), separator="x")  # regions along each side
    start: bool = option(True, words=("parallel", "sequential"))

    def __post_init__(self) -> None:
        check_size(self.count)

    def keys(self, grid: Grid) -> torch.Tensor:
        region_L = region_of(self.count, grid.frame)[0]
        return region_L.repeat(len(grid) // len(grid.frame))

    def starts(self, key_BL: torch.Tensor, scored_BL: torch.Tensor) -> torch.Tensor:
        new_BL = torch.zeros_like(scored_BL)
        start_B1 = torch.zeros(len(key_BL), 1, dtype=torch.int64, device=key_BL.device)
        last_BR = start_B1.expand(-1, int(key_BL.max()) + 1) - 1  # place of the last scored token of each region
        first_B1 = torch.ones_like(start_B1, dtype=torch.bool) & self.start  # inside the first set
        for place in range(key_BL.shape[1]):
            key_B1, scored_B1 = key_BL[:, place : place + 1], scored_BL[:, place : place + 1]
            before_B1 = last_BR.gather(1, key_B1)
            ends_B1 = scored_B1 & (before_B1 >= start_B1)
            first_B1 = first_B1 & ~ends_B1
            begun_B1 = (last_BR >= 0).any(1, keepdim=True)
            new_BL[:, place : place + 1] = ends_B1 | (first_B1 & scored_B1 & begun_B1)
            start_B1 = torch.where(ends_B1, place, start_B1)
            last_BR = last_BR.scatter(1, key_B1, torch.where(scored_B1, place, before_B1))
        return new_BL

"""Partitions: cuts of the sequence of ranks into sets, for any ordering.

B batch · L tokens · K AR steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

from orderings.base import ABSENT, GIVEN, Partition, argsort_whole
from orderings.blocks import block_of, check_size
from orderings.grid import Grid, InvalidRequest, Unsupported
from orderings.lazy import torch


@dataclass(frozen=True)
class Singles(Partition):
    """One token at a time: the full chain rule."""

    summary: ClassVar[str] = "one token at a time"

    def sizes(self, n: int) -> torch.Tensor:
        return torch.ones(n, dtype=torch.int64)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        return rank_BL.clone()


@dataclass(frozen=True)
class Equal(Partition):
    """Sets of ``size`` tokens; the last one holds what remains."""

    size: int = 4
    summary: ClassVar[str] = "sets of equal size"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InvalidRequest(f"equal: a set holds at least 1 token, not {self.size}")

    def sizes(self, n: int) -> torch.Tensor:
        return torch.tensor([min(self.size, n - start) for start in range(0, n, self.size)], dtype=torch.int64)


@dataclass(frozen=True)
class SizeSchedule(Partition):
    """``k`` sets whose sizes follow ``remaining``, the share of the tokens still unknown after a share of the steps.

    MAR's integer rule (arXiv 2406.11838, from MaskGIT, arXiv 2202.04200): after step s = 0..K-1 the number still
    unknown is ⌊n · remaining((s+1)/K)⌋, but at least one fewer than before and at least one for every step to come;
    the last step takes all the rest. A row with fewer than k tokens to generate takes them one at a time.
    """

    k: int = 16
    test_options: ClassVar[dict[str, Any]] = {"k": 3}

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InvalidRequest(f"{type(self).__name__.lower()}: at least 1 step, not {self.k}")

    def remaining(self, step: int, k: int) -> float | Fraction:
        """Return the share still unknown after ``step`` of ``k`` steps: from 1 at 0 to 0 at k."""
        raise NotImplementedError

    def sizes(self, n: int) -> torch.Tensor:
        k, left, sizes = min(self.k, n), n, []
        for step in range(1, k):
            after = max(k - step, min(left - 1, math.floor(n * self.remaining(step, k))))
            sizes.append(left - after)
            left = after
        return torch.tensor([*sizes, left], dtype=torch.int64)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        if self.k > grid.size:
            name = type(self).__name__.lower()
            raise Unsupported(f"{name}:{self.k} asks for more steps than the {len(grid)} tokens of {grid} allow")
        return super().steps(rank_BL, grid)


@dataclass(frozen=True)
class Cosine(SizeSchedule):
    """cos(π/2 · step/K): few tokens first, many at the end. The integer schedule of MAR's sampler."""

    summary: ClassVar[str] = "K sets, small ones first (MAR, MaskGIT)"

    def remaining(self, step: int, k: int) -> float:
        return math.cos(math.pi / 2.0 * step / k)


@dataclass(frozen=True)
class Linear(SizeSchedule):
    """1 − step/K: sets as equal as whole numbers allow."""

    summary: ClassVar[str] = "K sets of nearly equal size"

    def remaining(self, step: int, k: int) -> Fraction:
        return Fraction(k - step, k)  # exact: rounding would make some sets one token larger than need be


@dataclass(frozen=True)
class Power(SizeSchedule):
    """1 − (step/K)^exponent: small sets first above 1, large sets first below (MaskGIT's "pow")."""

    exponent: float = 2.0
    summary: ClassVar[str] = "K sets by a power law (MaskGIT)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exponent <= 0.0:
            raise InvalidRequest(f"power: the exponent is positive, not {self.exponent:g}")

    def remaining(self, step: int, k: int) -> float:
        return 1.0 - (step / k) ** self.exponent


@dataclass(frozen=True)
class Arccos(SizeSchedule):
    """2/π · arccos(step/K): nearly equal sets, then a large last one (the Halton scheduler's default)."""

    summary: ClassVar[str] = "K sets, the last ones large (Halton-MaskGIT)"

    def remaining(self, step: int, k: int) -> float:
        return math.acos(step / k) / (math.pi / 2.0)


@dataclass(frozen=True)
class Sizes(Partition):
    """Explicit set sizes, which sum to the grid's tokens; none: everything in one set.

    A row with fewer tokens to generate (some are given or absent) fills the first sets and leaves the last ones out.
    """

    sets: tuple[int, ...] = ()
    test_options: ClassVar[dict[str, Any]] = {"sets": (2, 1, 3)}
    summary: ClassVar[str] = "explicit set sizes"

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.sets):
            raise InvalidRequest(f"sizes: every set holds at least 1 token, not {','.join(map(str, self.sets))}")

    def sizes(self, n: int) -> torch.Tensor:
        if not self.sets:
            return torch.tensor([n])
        ends_K = torch.tensor([0, *self.sets]).cumsum(0).clamp(max=n)
        sizes_K = ends_K.diff()
        if int(ends_K[-1]) < n:
            raise Unsupported(f"sizes that sum to {sum(self.sets)} do not cover {n} tokens")
        return sizes_K[sizes_K > 0]

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        if self.sets and sum(self.sets) != len(grid):
            text = ",".join(map(str, self.sets))
            raise Unsupported(f"sizes:{text} sums to {sum(self.sets)}, but {grid} has {len(grid)} tokens")
        return super().steps(rank_BL, grid)


@dataclass(frozen=True)
class BlockSets(Partition):
    """A new set whenever the block changes along the order; with the ordering ``blocks`` of that size, a set per block.

    Blocks are cut as the ordering ``blocks`` cuts them. Under other orders a block may be entered more than once, and
    every visit is a set of its own.
    """

    size: tuple[int, ...] = field(default=(4,), metadata={"separator": "x"})
    test_options: ClassVar[dict[str, Any]] = {"size": (2,)}
    summary: ClassVar[str] = "a new set whenever the block changes"

    def __post_init__(self) -> None:
        check_size(self.size)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        block_L = block_of(self.size, grid)[0].to(rank_BL.device)
        scored_BL = (rank_BL > GIVEN) & (rank_BL < ABSENT)
        order_BL = argsort_whole(rank_BL + 1)  # given tokens first, absent ones last
        block_BL, scored_by_rank_BL = block_L[order_BL], scored_BL.gather(1, order_BL)
        new_BL = torch.zeros_like(scored_BL)
        new_BL[:, 1:] = scored_by_rank_BL[:, 1:] & scored_by_rank_BL[:, :-1] & (block_BL[:, 1:] != block_BL[:, :-1])
        step_BL = torch.empty_like(rank_BL).scatter_(1, order_BL, new_BL.cumsum(1))
        return torch.where(scored_BL, step_BL, rank_BL)

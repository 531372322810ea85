"""Partitions: cuts of the sequence of ranks into sets, for any ordering.

B batch · L tokens · K AR steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, ClassVar

from orderings.base import Partition, option
from orderings.grid import Grid, InvalidRequest, Unsupported, torch


@dataclass(frozen=True)
class Singles(Partition):
    """One token at a time: the full chain rule."""

    def sizes(self, n: int) -> torch.Tensor:
        return torch.ones(n, dtype=torch.int64)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        return rank_BL.clone()


@dataclass(frozen=True)
class Equal(Partition):
    """Sets of ``size`` tokens; the last one holds what remains."""

    size: int = option(4, least=1)

    def sizes(self, n: int) -> torch.Tensor:
        return torch.tensor([min(self.size, n - start) for start in range(0, n, self.size)], dtype=torch.int64)


@dataclass(frozen=True)
class SizeSchedule(Partition):
    """``k`` sets whose sizes follow ``remaining``, the share of the tokens still unknown after a share of the steps.

    MAR's integer rule (arXiv 2406.11838, from MaskGIT, arXiv 2202.04200): after step s = 0..K-1 the number still
    unknown is ⌊n · remaining((s+1)/K)⌋, but at least one fewer than before and at least one for every step to come;
    the last step takes all the rest. A row with fewer than k tokens to generate takes them one at a time.
    """

    k: int = option(16, least=1)
    test_options: ClassVar[dict[str, Any]] = {"k": 3}

    def remaining(self, step: int, k: int) -> float | Fraction:
        """Return the share still unknown after ``step`` of ``k`` steps: from 1 at 0 to 0 at k."""
        raise NotImplementedError

    def unknown(self, n: int, step: int, k: int) -> int:
        """Return how many of ``n`` tokens are unknown after ``step`` of ``k`` steps, before the bounds of the rule."""
        return math.floor(n * self.remaining(step, k))

    def sizes(self, n: int) -> torch.Tensor:
        k, left, sizes = min(self.k, n), n, []
        for step in range(1, k):
            after = max(k - step, min(left - 1, self.unknown(n, step, k)))
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
    """K sets, small ones first: cos(π/2 · step/K), the schedule of MAR's and MaskGIT's samplers."""

    def remaining(self, step: int, k: int) -> float:
        return math.cos(math.pi / 2.0 * step / k)


@dataclass(frozen=True)
class Linear(SizeSchedule):
    """K sets as equal as whole numbers allow: 1 − step/K."""

    def remaining(self, step: int, k: int) -> Fraction:
        return Fraction(k - step, k)  # exact: rounding would make some sets one token larger than need be


@dataclass(frozen=True)
class Power(SizeSchedule):
    """K sets by 1 − (step/K)^exponent: small ones first above 1, large ones first below (MaskGIT's "pow")."""

    exponent: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exponent <= 0.0:
            raise InvalidRequest(f"power: the exponent is positive, not {self.exponent:g}")

    def remaining(self, step: int, k: int) -> float:
        return 1.0 - (step / k) ** self.exponent


@dataclass(frozen=True)
class Arccos(SizeSchedule):
    """K sets, the last ones large: 2/π · arccos(step/K) unknown (the Halton scheduler's default).

    As its sampler does, round down the number of tokens that are known, in float32.
    """

    def unknown(self, n: int, step: int, k: int) -> int:
        return n - int(_halton_share(step / k) * n)


@lru_cache(maxsize=4096)
def _halton_share(ratio: float) -> torch.Tensor:
    return 1 - torch.arccos(torch.tensor(ratio)) / (math.pi * 0.5)


@dataclass(frozen=True)
class Log(SizeSchedule):
    """K sets, large ones first: −log(step/K) / log L unknown, MaskGIT's "log", in float32 as there."""

    def unknown(self, n: int, step: int, k: int) -> int:
        return math.floor(-torch.tensor(step / k).log2() / torch.tensor(float(n)).log2() * n)


@dataclass(frozen=True)
class Exp(SizeSchedule):
    """K sets, the last ones very large: 1 − L^(step/K − 1) unknown, MaskGIT's "exp", in float32 as there."""

    def unknown(self, n: int, step: int, k: int) -> int:
        return math.floor((1 - torch.exp2(-torch.tensor(float(n)).log2() * (1 - torch.tensor(step / k)))) * n)


@dataclass(frozen=True)
class RandAR(SizeSchedule):
    """K sets by the cosine, one more token known than its share: RandAR's parallel decoding (arXiv 2412.01827).

    The first set is one token. RandAR takes 88 steps for 256 tokens.
    """

    def unknown(self, n: int, step: int, k: int) -> int:
        known = int((1.0 - math.cos(math.pi / 2.0 * step / k)) * n + 1)
        return n - (1 if step == 1 else known)


@dataclass(frozen=True)
class Lpd(SizeSchedule):
    """K sets, a single token first, then growing as the cosine's: LPD's tables (arXiv 2507.01957).

    Each set is the cosine's share, rounded, at least 1; sets from the last one on lose or gain a token until the sizes
    sum up; they are sorted. These are LPD's ``group_sizes_lookup.json`` for 256 tokens in 12, 16, 20, 32, 64 and 128
    steps and for 1,024 in 32, 40, 48 and 512, among them all that its paper generates with; in its other tables a few
    sets hold a token more or less.
    """

    k: int = option(20, least=1)

    def sizes(self, n: int) -> torch.Tensor:
        if (k := min(self.k, n)) == 1:
            return torch.tensor([n])
        edges = [n * math.cos(math.pi / 2.0 * step / k) for step in range(k + 1)]
        sizes = [max(1, round(before - after)) for before, after in pairwise(edges)]
        sizes[0], place = 1, k - 1
        while (left := n - sum(sizes)) != 0:
            sizes[place] += 1 if left > 0 else -(sizes[place] > 1)
            place = place - 1 if place > 1 else k - 1
        return torch.tensor(sorted(sizes))


@dataclass(frozen=True)
class TwoStage(Partition):
    """A skeleton in ``k`` sets, then everything else in ``rest`` (Generation then Reconstruction, arXiv 2510.17171).

    The skeleton is the first half of the order: under ``checkerboard`` or ``checkerboard:random`` one colour of the
    board. Both stages follow the cosine schedule.
    """

    k: int = option(12, least=1)
    rest: int = option(1, least=1)
    test_options: ClassVar[dict[str, Any]] = {"k": 2}

    def sizes(self, n: int) -> torch.Tensor:
        stages = [(self.k, n - n // 2), (self.rest, n // 2)]
        return torch.cat([Cosine(k).sizes(part) for k, part in stages if part])

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        if self.k > len(grid) - len(grid) // 2 or self.rest > max(1, len(grid) // 2):
            raise Unsupported(
                f"two-stage:{self.k}:rest={self.rest} asks for more steps than the halves of the {len(grid)} tokens of "
                f"{grid} allow"
            )
        return super().steps(rank_BL, grid)


@dataclass(frozen=True)
class Sizes(Partition):
    """Explicit set sizes, which sum to the grid's tokens; none: everything in one set.

    A row with fewer tokens to generate (some are given or absent) fills the first sets and leaves the last ones out.
    """

    sets: tuple[int, ...] = option((), least=1)
    test_options: ClassVar[dict[str, Any]] = {"sets": (2, 1, 3)}

    def sizes(self, n: int) -> torch.Tensor:
        if not self.sets:
            return torch.tensor([n])
        if sum(self.sets) < n:
            raise Unsupported(f"sizes that sum to {sum(self.sets)} do not cover {n} tokens")
        ends = [min(end, n) for end in accumulate(self.sets, initial=0)]
        return torch.tensor([after - before for before, after in pairwise(ends) if after > before])

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        if self.sets and sum(self.sets) != len(grid):
            text = ",".join(map(str, self.sets))
            raise Unsupported(f"sizes:{text} sums to {sum(self.sets)}, but {grid} has {len(grid)} tokens")
        return super().steps(rank_BL, grid)

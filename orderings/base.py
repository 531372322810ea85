"""What an ordering and a partition are.

B batch · L tokens · K AR steps

An ordering ranks the tokens (who comes before whom); a partition cuts the sequence of ranks into sets.
Both are frozen dataclasses: their fields are their options, with defaults, so ``ORDERINGS[name]()`` works.
The first field is the one that ``name:value`` sets on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from orderings.grid import Grid

GIVEN = -1  # known from the start: conditioned on, never scored
ABSENT = 2**30  # padding: never a key, a query or a target


class Source(Protocol):
    """Where random numbers come from. ``mar.noise.Noise`` is one; ``Seeded`` is the plain one."""

    def uniform(self, n: int) -> torch.Tensor:
        """(B, n) float32 uniforms in [0, 1), row b a function of row b's own key."""
        ...


@dataclass
class Seeded:
    """A ``Source`` over a ``torch.Generator``, for use of this package on its own."""

    batch: int
    generator: torch.Generator | None = None

    def uniform(self, n: int) -> torch.Tensor:
        return torch.rand(self.batch, n, generator=self.generator)


@dataclass(frozen=True)
class Ordering:
    """Who comes before whom."""

    random: ClassVar[bool] = False  # True when ``ranks`` draws from the generator
    summary: ClassVar[str] = ""  # one line for ``mar orderings list``

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        """rank_BL (int64): each row a permutation of 0..L-1; rank 0 is generated first.

        Raises:
            Unsupported: this ordering makes no sense on ``grid``; the message says where it does.
        """
        raise NotImplementedError

    def at(self, progress: float) -> Ordering:
        """The ordering at a fraction 0..1 of training; only annealed orderings change."""
        return self


@dataclass(frozen=True)
class FixedOrdering(Ordering):
    """An ordering that is the same for every row: implement ``rank`` alone."""

    def rank(self, grid: Grid) -> torch.Tensor:
        """rank_L (int64): a permutation of 0..L-1."""
        raise NotImplementedError

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return self.rank(grid).expand(batch, -1)


@dataclass(frozen=True)
class Partition:
    """Where the sequence of ranks is cut into sets: implement ``sizes``, or ``steps`` if it depends on the tokens."""

    summary: ClassVar[str] = ""

    def sizes(self, n: int) -> torch.Tensor:
        """(K,) int64, each at least 1 and summing to ``n``: the set sizes for ``n`` tokens to generate.

        Raises:
            Unsupported: ``n`` tokens cannot be cut this way.
        """
        raise NotImplementedError

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        """step_BL (int64): non-decreasing in rank, no empty step before a row's last.

        ``rank_BL`` may hold GIVEN and ABSENT entries, which pass through; the others are 0..n-1 in each row.
        """
        scored_BL = (rank_BL > GIVEN) & (rank_BL < ABSENT)
        n_B = scored_BL.sum(1)
        step_BL = rank_BL.clone()
        for n in n_B.unique().tolist():  # a handful of values: one per number of tokens to generate
            if n == 0:
                continue
            ends_K = self.sizes(n).to(rank_BL.device).cumsum(0)
            step_of_rank = torch.searchsorted(ends_K, torch.arange(n, device=rank_BL.device), right=True)
            here_BL = scored_BL & (n_B == n)[:, None]
            step_BL[here_BL] = step_of_rank[rank_BL[here_BL]]
        return step_BL

"""A plan: an ordered partition of the tokens, as one integer tensor.

B batch · L tokens · K AR steps

    p(x) = prod_k p(x_{S_k} | x_{S_1}, ..., x_{S_{k-1}})

``step_BL[b, l]`` is the AR step at which token l of row b is generated. Everything downstream reads only this
tensor: tokens known before step s are ``step < s``, those predicted at s are ``step == s``, and a causal attention
mask is ``step_query > step_key``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from orderings.base import ABSENT, GIVEN, Ordering, Partition, Seeded, Source
from orderings.grid import Grid, InvalidRequest, Unsupported, torch


@dataclass(frozen=True)
class Plan:
    """``rank_BL`` and ``step_BL`` (int64). GIVEN tokens are known from the start, ABSENT ones do not exist."""

    rank_BL: torch.Tensor
    step_BL: torch.Tensor

    @classmethod
    def sample(
        cls,
        ordering: Ordering,
        partition: Partition,
        grid: Grid,
        batch: int,
        generator: Source,
        given_BL: torch.Tensor | None = None,
        absent_BL: torch.Tensor | None = None,
    ) -> Plan:
        """Sample a plan for ``batch`` rows. Tokens to generate keep their relative order around given and absent ones.

        Raise Unsupported if the ordering or partition does not support ``grid``, InvalidRequest if the order is random
        and ``generator`` a ``Seeded`` of another number of rows.
        """
        ordering.check(grid)
        if ordering.random and isinstance(generator, Seeded) and generator.batch != batch:
            raise InvalidRequest(f"Seeded({generator.batch}) draws for {generator.batch} rows, not for batch={batch}")
        rank_BL = ordering.among(partition, grid).ranks(grid, batch, generator)
        if given_BL is not None or absent_BL is not None:
            rank_BL = _rerank(rank_BL, given_BL, absent_BL)
        return cls(rank_BL, partition.steps(rank_BL, grid))

    @cached_property
    def n_steps_B(self) -> torch.Tensor:
        """(B,) int64: the number of AR steps of each row (0 when nothing is left to generate)."""
        return torch.where(self.scored_BL, self.step_BL, -1).amax(1) + 1

    @cached_property
    def scored_BL(self) -> torch.Tensor:
        """(B, L) bool: the tokens that this plan generates and scores."""
        return (self.step_BL > GIVEN) & (self.step_BL < ABSENT)

    def known(self, s: int | torch.Tensor) -> torch.Tensor:
        """Return (B, L) bool: the tokens known before step ``s`` (an int, or one per row)."""
        return self.step_BL < _per_row(s)

    def target(self, s: int | torch.Tensor) -> torch.Tensor:
        """Return (B, L) bool: the tokens generated at step ``s`` (an int, or one per row)."""
        return self.step_BL == _per_row(s)

    def sizes(self) -> torch.Tensor:
        """Return (B, K) int64: the number of tokens of each step of each row, 0 after the last step of a row."""
        n_steps = int(self.n_steps_B.max())
        index_BL = torch.where(self.scored_BL, self.step_BL, n_steps)
        counts = torch.zeros(len(index_BL), n_steps + 1, dtype=torch.int64, device=index_BL.device)
        return counts.scatter_add_(1, index_BL, torch.ones_like(index_BL))[:, :n_steps]

    def shortened(self, absent_BL: torch.Tensor) -> Plan:
        """Return the plan of rows that end early: the tokens ``absent_BL`` (bool) do not exist.

        Raise Unsupported if an absent token precedes a present one: the steps would reveal the end of the row.
        """
        last_B1 = torch.where(absent_BL, GIVEN, self.step_BL).amax(1, keepdim=True)
        if bool((absent_BL & (self.step_BL <= last_B1)).any()):
            raise Unsupported("tokens that do not exist come after all others: use ordering=raster, partition=singles")
        return Plan(self.rank_BL.masked_fill(absent_BL, ABSENT), self.step_BL.masked_fill(absent_BL, ABSENT))

    def rows(self, index: torch.Tensor | slice) -> Plan:
        """Return the plan of some rows."""
        return Plan(self.rank_BL[index], self.step_BL[index])

    def to(self, device: torch.device | str) -> Plan:
        return Plan(self.rank_BL.to(device), self.step_BL.to(device))


def _per_row(s: int | torch.Tensor) -> int | torch.Tensor:
    return s[:, None] if isinstance(s, torch.Tensor) and s.ndim == 1 else s


def _rerank(rank_BL: torch.Tensor, given_BL: torch.Tensor | None, absent_BL: torch.Tensor | None) -> torch.Tensor:
    """Return ranks 0..n-1 of the remaining tokens in their order; GIVEN and ABSENT elsewhere."""
    none_BL = torch.zeros_like(rank_BL, dtype=torch.bool)
    given_BL, absent_BL = (none_BL if marks is None else marks.to(rank_BL.device) for marks in (given_BL, absent_BL))
    kept_BL = ~(given_BL | absent_BL)
    kept_by_rank = torch.zeros_like(kept_BL).scatter_(1, rank_BL, kept_BL)
    rank_BL = (kept_by_rank.cumsum(1) - 1).gather(1, rank_BL)
    return rank_BL.masked_fill(given_BL, GIVEN).masked_fill(absent_BL, ABSENT)

"""The partition into the K sets that cost least, as measured.

B batch · L tokens · K AR steps
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from orderings.base import Partition
from orderings.grid import Grid, InvalidRequest, Unsupported
from orderings.set_costs import BestSets, best_sets_of


@dataclass(frozen=True)
class Optimal(Partition):
    """The best ``k`` sets for the costs in a file that ``mar score RUN --sets`` wrote.

    Without ``costs`` it waits for them: a run scores and samples with its own (``resolve_optimal``). A row with only n
    of the L tokens to generate is cut as the last n of an order are, L - n being known: right for uniformly random
    orders and given tokens, near it for others. A row with fewer than k tokens takes them one at a time.
    """

    k: int = 16
    costs: str = ""
    summary: ClassVar[str] = "the best K sets for measured costs (mar score RUN --sets)"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InvalidRequest(f"optimal: at least 1 step, not {self.k}")

    def with_costs(self, path: str | Path) -> Optimal:
        """The same number of sets, by the costs in this file."""
        return replace(self, costs=str(path))

    def sizes(self, n: int) -> torch.Tensor:
        best = self._best()
        known = best.nats_KS.shape[1] - 1 - n
        if known < 0:
            raise Unsupported(f"{self.costs} was measured for {n + known} tokens, not {n}")
        return torch.tensor(best.sizes(min(self.k, n), known), dtype=torch.int64)

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        measured = self._best().nats_KS.shape[1] - 1
        if measured != len(grid):
            raise Unsupported(f"{self.costs} was measured for {measured} tokens, but {grid} has {len(grid)}")
        if self.k > len(grid):
            raise Unsupported(f"optimal:{self.k} asks for more steps than the {len(grid)} tokens of {grid} allow")
        return super().steps(rank_BL, grid)

    def _best(self) -> BestSets:
        if not self.costs:
            raise Unsupported(
                f"optimal:{self.k} needs set costs: mar score RUN --sets writes RUN/scores/set-costs-ORDERING.json, "
                f"which that run then reads by itself; elsewhere write optimal:{self.k}:costs=(PATH)"
            )
        path = Path(self.costs)
        # a file that is not there is refused where it is read
        return best_sets_of(path, path.stat().st_mtime_ns if path.is_file() else 0, self.k)


def costs_file(folder: Path, ordering: str) -> Path:
    """Where the run in ``folder`` keeps the set costs of an ordering (its short text)."""
    return folder / "scores" / f"set-costs-{ordering.replace('/', '-').replace(':', '')}.json"


def resolve_optimal(partition: Partition, ordering: str, folder: Path) -> Partition:
    """``optimal`` without costs takes those that the run in ``folder`` measured under ``ordering`` (its short text).

    Raises:
        Unsupported: they were not measured yet; the message says how.
    """
    if not isinstance(partition, Optimal) or partition.costs:
        return partition
    path = costs_file(folder, ordering)
    if not path.is_file():
        raise Unsupported(
            f"optimal:{partition.k} under {ordering} needs measured costs: measure first, "
            f"mar score {folder} --sets --plans {ordering}"
        )
    return partition.with_costs(path)

"""The partition into the K sets that cost least, from measured costs of generating sets in parallel.

B batch · L tokens · K AR steps · S numbers of known tokens · E ends of a set (0..L)

A set that holds ranks s..e-1 of an order, generated after the first s tokens, costs

    C[s, e] = sum_{r=s}^{e-1} E[-log p(x_{sigma_r} | x_{sigma_<s})]

and under uniformly random orders, where all unknown tokens are alike, (e - s) l(s), l(s) the mean over the unknown ones
after s known. The cost of a plan is the sum over its sets, so the best K sets follow by dynamic programming over the
end of the first one (Watson et al. 2021, arXiv 2106.03802; Hoogeboom et al. 2022, arXiv 2110.02037, for random orders).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from orderings.base import Partition, option
from orderings.grid import Grid, InvalidRequest, Unsupported, shortened, torch
from orderings.user import existing


@dataclass(frozen=True)
class SetCosts:
    """A measurement of one ordering.

    ``nats`` of uniformly random orders: (L,) l(s), a figure for each number of known tokens. Otherwise L rows, row s
    with the L - s figures E[-log p(x_{sigma_r} | x_{sigma_<s})].
    """

    ordering: str  # its short text
    grid: str  # e.g. "8x8"
    uniform: bool  # every order is equally likely
    nats: Sequence[Any]
    standard_error_nats: Sequence[float]  # (L,) of the mean over the tokens unknown after s, over images
    n_images: int
    provenance: Mapping[str, Any] = field(default_factory=dict)  # split, data, kind of likelihood, seed, weights, …

    @property
    def n_tokens(self) -> int:
        return len(self.nats)

    def matrix(self) -> np.ndarray:
        """Return C[s, e] in nats, infinite where e <= s: (L, L + 1) float64."""
        n = self.n_tokens
        cost_SE = np.full((n, n + 1), np.inf)
        for s, known in enumerate(self.nats):
            each = np.full(n - s, known) if self.uniform else np.asarray(known)
            cost_SE[s, s + 1 :] = each.cumsum()
        return cost_SE


def read_set_costs(path: str | Path) -> SetCosts:
    """Read set costs. Raise InvalidRequest if there is no such file, or it holds no set costs."""
    file = existing(path)
    if file is None:
        raise InvalidRequest(f"no file of set costs {shortened(str(path))!r}: mar score sets RUN writes one")
    try:
        costs = SetCosts(**json.loads(file.read_text(encoding="utf-8-sig")))
        rows = [np.asarray(row, dtype=float) for row in costs.nats]
        shapes = [() if costs.uniform else (costs.n_tokens - s,) for s in range(costs.n_tokens)]
        if not rows or [row.shape for row in rows] != shapes or not all(np.isfinite(row).all() for row in rows):
            raise ValueError("not the costs of every set")
    except (TypeError, ValueError, OSError, RecursionError, MemoryError) as error:
        raise InvalidRequest(f"{file} holds no set costs, as mar score sets RUN writes them: {error}") from None
    return costs


@dataclass(frozen=True)
class BestSets:
    """The least cost of generating ranks s..L-1 in exactly k sets, and the sizes that attain it: (K + 1, L + 1)."""

    nats_KS: np.ndarray  # infinite where k sets are impossible
    first_KS: np.ndarray  # size of the first of those sets, the smallest among equally good ones; 0 where impossible

    def sizes(self, k: int, start: int = 0) -> list[int]:
        """Return the sizes of the k best sets of ranks start..L-1."""
        sizes = []
        while k:
            sizes.append(int(self.first_KS[k, start]))
            start, k = start + sizes[-1], k - 1
        return sizes


def best_sets(cost_SE: np.ndarray, k: int) -> BestSets:
    """Return the best 1..k sets for costs (L, L + 1), in O(k L^2) operations and O(L^2 + k L) memory.

    D[0, L] = 0,     D[k, s] = min_{s < e <= L} C[s, e] + D[k - 1, e]
    """
    n = len(cost_SE)
    nats_KS, first_KS = np.full((k + 1, n + 1), np.inf), np.zeros((k + 1, n + 1), dtype=np.int32)
    nats_KS[0, n] = 0.0
    through = np.empty_like(cost_SE)
    for sets in range(1, k + 1):
        rows = n - sets + 1  # k sets need k tokens
        end_S = np.add(cost_SE[:rows], nats_KS[sets - 1], out=through[:rows]).argmin(1)
        nats_KS[sets, :rows] = through[np.arange(rows), end_S]
        first_KS[sets, :rows] = end_S - np.arange(rows)
    return BestSets(nats_KS, first_KS)


def cost_of(cost_SE: np.ndarray, sizes: Iterable[int]) -> float:
    """Return the cost in nats of sets of these sizes, in order from the first token."""
    end_K = np.cumsum(list(sizes))
    return float(cost_SE[np.concatenate([[0], end_K[:-1]]), end_K].sum())


@lru_cache(maxsize=8)
def best_sets_of(path: Path, modified_ns: int, k: int) -> BestSets:
    """Read and solve each version of the file once."""
    costs = read_set_costs(path)
    return best_sets(costs.matrix(), min(k, costs.n_tokens))


@dataclass(frozen=True)
class Optimal(Partition):
    """The best K sets for the costs in a file that ``mar score sets RUN`` wrote.

    Without ``costs`` a run uses its own measurement (``mar.model.plans``). A row with only n of the L tokens to
    generate is cut as the last n of an order, after L - n known ones: exact for uniformly random orders and given
    tokens, close for others. A row with fewer than k tokens takes them one at a time.
    """

    k: int = option(16, least=1)
    costs: str = ""

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
                f"optimal:{self.k} needs set costs: mar score sets RUN writes RUN/scores/set-costs-ORDERING.json, "
                f"which that run then reads by itself; elsewhere write optimal:{self.k}:costs=(PATH)"
            )
        file = existing(self.costs)
        return best_sets_of(file or Path(self.costs), file.stat().st_mtime_ns if file else 0, self.k)

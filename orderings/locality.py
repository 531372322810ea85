"""LPD's locality-aware order: near what is known, far from one another inside a set.

B batch · L tokens · D grid dimensions · K AR steps

Zhang et al. 2025, "Locality-aware Parallel Decoding" (arXiv 2507.01957), section 3.3 and ``orders/lpd_order.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from orderings.base import Ordering, Partition, Source, inverse, option, shuffle
from orderings.grid import Grid, Unsupported, torch

_MOST = 4096  # tokens: tables of all pairs are kept
_FAR = 2**31


@dataclass(frozen=True)
class Locality(Ordering):
    """Sets near the known tokens and spread out in themselves, anew for each image (LPD, arXiv 2507.01957).

    The first token is random. A set then takes the tokens of highest proximity to what is known (the sum of 1/distance
    to a token's known neighbours), ties at random, none within ``repulsion`` rows and columns of another one of the
    set. When these run out before the set is full, it takes the token farthest from the set, again and again. The sizes
    of the sets are those of the plan's partition, so the order depends on it; given tokens do not change it. Distances
    count channels or time as a third axis; LPD's code is 2-D. LPD's plans of ImageNet: ``locality:2/lpd:20`` and
    ``locality:2/lpd:32`` on 16×16 tokens, ``locality:4/lpd:48`` on 32×32.
    """

    repulsion: int = option(2, least=0, most=_MOST)  # rows and columns between tokens of a set
    proximity: float = option(1.0, least=0)  # from here on a token is close to what is known
    sets: tuple[int, ...] = option((), least=1)  # sizes; none: those of the partition, or single tokens
    random: ClassVar[bool] = True
    time: ClassVar[bool] = True

    def among(self, partition: Partition, grid: Grid) -> Locality:
        if self.sets or type(partition).sizes is Partition.sizes:  # a partition by place cuts whatever order there is
            return self
        return replace(self, sets=tuple(partition.sizes(len(grid)).tolist()))

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        self.check(grid)
        length, sets = len(grid), self.sets or (1,) * len(grid)
        if length > _MOST:
            raise Unsupported(f"locality orders at most {_MOST:,} tokens, and {grid} has {length:,}")
        if sum(sets) != length:
            raise Unsupported(f"locality: sets that sum to {sum(sets)} are not for the {length} tokens of {grid}")
        near_LL, diagonal_LL, square_LL, apart_LL = _pairs(grid)
        unknown_BL = torch.ones(batch, length, dtype=torch.bool)
        row_B, order = torch.arange(batch), []
        for step, size in enumerate(sets):
            place_BL = shuffle(generator.at(f"step {step}").uniform(length)).cpu()
            known_BL = (~unknown_BL).float()
            direct_BL, diagonal_BL = (known_BL @ near_LL).long(), (known_BL @ diagonal_LL).long()
            score_BL = direct_BL.double() + diagonal_BL.double() / 2**0.5
            close_BL = unknown_BL & (score_BL >= self.proximity)
            # by proximity, in whole numbers so that ties are exact; then by the random place
            sorted_BL = inverse(torch.argsort(place_BL - length * (1_000_000 * direct_BL + 707_107 * diagonal_BL)))
            free_BL = close_BL.clone()  # close, and not within ``repulsion`` of the set so far
            distance_BL = torch.full((batch, length), _FAR)  # squared, to the nearest of the set
            for _ in range(size):
                chosen_B = torch.where(free_BL, sorted_BL, length).argmin(1)
                if not (near_B := free_BL.any(1)).all():
                    # the farthest of the set; ties: not close before close. An empty set takes any, the last set all
                    listed_BL = sorted_BL + length * close_BL
                    if step < len(sets) - 1:
                        listed_BL = torch.where(distance_BL == _FAR, place_BL, listed_BL) - distance_BL * 2 * length
                    chosen_B = torch.where(near_B, chosen_B, torch.where(unknown_BL, listed_BL, 2 * length).argmin(1))
                order.append(chosen_B)
                unknown_BL[row_B, chosen_B] = False
                free_BL &= unknown_BL & (apart_LL[chosen_B] > self.repulsion)
                distance_BL = torch.minimum(distance_BL, square_LL[chosen_B])
        return inverse(torch.stack(order, dim=1))


@lru_cache(maxsize=8)
def _pairs(grid: Grid) -> tuple[torch.Tensor, ...]:
    """Return (L, L): direct neighbours, diagonal ones, squared distances, the larger offset along a dimension."""
    offset_LLD = (grid.coordinates()[:, None] - grid.coordinates()).abs()
    square_LL, apart_LL = offset_LLD.square().sum(2), offset_LLD.amax(2)
    return (square_LL == 1).float(), (square_LL == 2).float(), square_LL, apart_LL

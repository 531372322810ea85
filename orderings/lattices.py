"""Sub-lattices: coarse to fine, and the two colours of a checkerboard.

L tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from orderings.base import PixelOrdering
from orderings.grid import Grid, InvalidRequest
from orderings.ranking import rank_by


@dataclass(frozen=True)
class Subsample(PixelOrdering):
    """Coarse to fine: every second pixel in each direction first, itself ordered likewise, then the other phases.

    The order of the VQGAN ablation (arXiv 2012.09841) and of RAR (arXiv 2411.00776), on any grid: phases (even, even),
    (even, odd), (odd, even), (odd, odd). On a 1-D grid, the bit-reversed order. With ``levels`` the halving stops early
    and each sub-grid is a raster scan: 2 levels give the 4×4 sub-images of subscale pixel networks (arXiv 1812.01608),
    in nested order.
    """

    levels: int | None = None  # how many halvings; none: down to single pixels
    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)
    summary: ClassVar[str] = "coarse to fine, by nested sub-grids"

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 1:
            raise InvalidRequest(f"subsample: levels is at least 1, not {self.levels}")

    def pixels(self, plane: Grid) -> torch.Tensor:
        coordinates_LD = plane.coordinates()
        bits = (max(plane.shape) - 1).bit_length()
        levels = bits if self.levels is None else min(self.levels, bits)
        phase_L = torch.zeros(len(plane), dtype=torch.int64)
        for level in range(levels):
            for coordinate_L in coordinates_LD.unbind(1):
                phase_L = 2 * phase_L + ((coordinate_L >> level) & 1)
        return rank_by(phase_L)


@dataclass(frozen=True)
class Checkerboard(PixelOrdering):
    """The pixels whose coordinates sum to an even number, then the others, each in raster order."""

    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)
    summary: ClassVar[str] = "one colour of a checkerboard, then the other"

    def pixels(self, plane: Grid) -> torch.Tensor:
        return rank_by(plane.coordinates().sum(1) % 2)

"""Halton's low-discrepancy sequence as an order.

B batch · L tokens
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from orderings.base import PixelOrdering, Source
from orderings.grid import Grid
from orderings.ranking import inverse

BASES = (2, 3)  # rows, columns


@dataclass(frozen=True)
class Halton(PixelOrdering):
    """Pixels in the order in which Halton's points (bases 2 and 3) first fall into them: spread evenly at any moment.

    The Halton scheduler (Besnier et al., ICLR 2025), on any grid; base 2 alone (van der Corput) on a 1-D grid; on a 3-D
    grid the channels of a pixel come consecutively. With ``roll`` every row starts somewhere else in the sequence.
    """

    roll: bool = field(default=True, metadata={"words": ("fixed", "rolled")})
    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)
    summary: ClassVar[str] = "low-discrepancy points, rolled for each image"

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", self.roll)

    def pixels(self, plane: Grid) -> torch.Tensor:
        return _first_visits(plane)

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        rank_BL = super().ranks(grid, batch, generator)
        if not self.roll:
            return rank_BL
        pixels, channels = len(Grid(grid.shape[:2])), len(grid) // len(Grid(grid.shape[:2]))
        shift_B1 = (generator.uniform(1) * pixels).long().clamp(max=pixels - 1)
        return (rank_BL.to(shift_B1.device) + shift_B1 * channels) % len(grid)


def _first_visits(plane: Grid) -> torch.Tensor:
    """rank of each pixel: points are drawn until every pixel has been hit (24 points a pixel always suffice)."""
    points = 2 * len(plane)
    while True:
        pixel = torch.zeros(points, dtype=torch.int64)
        for size, base in zip(plane.shape, BASES, strict=False):
            pixel = pixel * size + _radical_inverse_cell(points, base, size)
        first = torch.full((len(plane),), points).scatter_reduce_(0, pixel, torch.arange(points), "amin")
        if int(first.max()) < points:
            return inverse(torch.argsort(first))
        points *= 2


def _radical_inverse_cell(points: int, base: int, size: int) -> torch.Tensor:
    """floor(size · φ_base(n)) for n = 1..points, in whole numbers: no point falls on the wrong side of an edge."""
    n = torch.arange(1, points + 1)
    mirrored, scale = torch.zeros_like(n), 1
    while scale <= points:
        mirrored = mirrored * base + n % base
        n, scale = n // base, scale * base
    return mirrored * size // scale

"""Line by line: raster, reverse, column-major, serpentine, diagonal; and outwards from the centre.

L tokens · D grid dimensions
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from orderings.base import FixedOrdering, PixelOrdering
from orderings.grid import Grid
from orderings.ranking import rank_by


@dataclass(frozen=True)
class Raster(FixedOrdering):
    """Row by row, left to right; on a 1-D grid left to right; on a 3-D grid the channels of a pixel consecutively."""

    summary: ClassVar[str] = "row by row, left to right"

    def rank(self, grid: Grid) -> torch.Tensor:
        return torch.arange(len(grid))


@dataclass(frozen=True)
class Reverse(FixedOrdering):
    """Raster backwards: the last token first. Works on every grid; on a 3-D grid the last channel comes first."""

    summary: ClassVar[str] = "raster backwards"

    def rank(self, grid: Grid) -> torch.Tensor:
        return torch.arange(len(grid)).flip(0)


@dataclass(frozen=True)
class Column(PixelOrdering):
    """Column by column, top to bottom. 2-D and 3-D (a pixel's channels consecutively)."""

    summary: ClassVar[str] = "column by column, top to bottom"

    def pixels(self, plane: Grid) -> torch.Tensor:
        i_L, j_L = plane.coordinates().unbind(1)
        return rank_by(j_L, i_L)


@dataclass(frozen=True)
class Serpentine(PixelOrdering):
    """Rows (or columns) there and back, so that consecutive pixels touch. RAR (arXiv 2411.00776) calls it "alternate".

    2-D and 3-D (a pixel's channels consecutively).
    """

    vertical: bool = field(default=False, metadata={"words": ("horizontal", "vertical")})
    summary: ClassVar[str] = "rows (or columns) there and back"

    def pixels(self, plane: Grid) -> torch.Tensor:
        i_L, j_L = plane.coordinates().unbind(1)
        line_L, along_L = (j_L, i_L) if self.vertical else (i_L, j_L)
        return rank_by(line_L, torch.where(line_L % 2 == 0, along_L, -along_L))


@dataclass(frozen=True)
class Diagonal(PixelOrdering):
    """Anti-diagonals from the top left corner, each from its upper end. 2-D and 3-D (a pixel's channels consecutively).

    Zigzag: every second diagonal backwards, as JPEG orders its coefficients.
    """

    zigzag: bool = field(default=False, metadata={"words": ("one-way", "zigzag")})
    summary: ClassVar[str] = "anti-diagonals from the top left corner"

    def pixels(self, plane: Grid) -> torch.Tensor:
        i_L, j_L = plane.coordinates().unbind(1)
        backwards_L = ((i_L + j_L) % 2 == 0) & self.zigzag
        return rank_by(i_L + j_L, torch.where(backwards_L, -i_L, i_L))


@dataclass(frozen=True)
class CentreOut(PixelOrdering):
    """By distance from the centre of the grid, ties in raster order. On a 1-D grid: from the middle to both ends."""

    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)
    summary: ClassVar[str] = "by distance from the centre"

    def pixels(self, plane: Grid) -> torch.Tensor:
        # twice the offset from the centre: whole numbers, so that ties are exact
        offset_LD = 2 * plane.coordinates() - (torch.tensor(plane.shape) - 1)
        return rank_by(offset_LD.square().sum(1))

"""Scans: rows, columns, diagonals, spirals, distance from the centre, and sub-lattices.

L tokens · D grid dimensions · i row · j column
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

from orderings.base import FixedOrdering, Ordering, PixelOrdering, Source, argsort_whole, inverse, option, rank_by
from orderings.grid import Grid, torch


@dataclass(frozen=True)
class Raster(FixedOrdering):
    """Row by row, left to right."""

    def rank(self, grid: Grid) -> torch.Tensor:
        return torch.arange(len(grid))


@dataclass(frozen=True)
class Reverse(FixedOrdering):
    """Raster backwards, the last token (and channel) first."""

    def rank(self, grid: Grid) -> torch.Tensor:
        return torch.arange(len(grid)).flip(0)


@dataclass(frozen=True)
class Column(PixelOrdering):
    """Column by column, top to bottom."""

    def pixels(self, plane: Grid) -> torch.Tensor:
        i_L, j_L = plane.coordinates().unbind(1)
        return rank_by(j_L, i_L)


@dataclass(frozen=True)
class Serpentine(PixelOrdering):
    """Rows (or columns) there and back.

    Consecutive pixels touch. RAR (arXiv 2411.00776) calls it "alternate".
    """

    vertical: bool = option(False, words=("horizontal", "vertical"))

    def pixels(self, plane: Grid) -> torch.Tensor:
        i_L, j_L = plane.coordinates().unbind(1)
        line_L, along_L = (j_L, i_L) if self.vertical else (i_L, j_L)
        return rank_by(line_L, torch.where(line_L % 2 == 0, along_L, -along_L))


@dataclass(frozen=True)
class Diagonal(PixelOrdering):
    """Anti-diagonals from the top left corner, each from its upper end.

    Zigzag: every second diagonal backwards, as JPEG orders its coefficients.
    """

    zigzag: bool = option(False, words=("one-way", "zigzag"))

    def pixels(self, plane: Grid) -> torch.Tensor:
        i_L, j_L = plane.coordinates().unbind(1)
        backwards_L = ((i_L + j_L) % 2 == 0) & self.zigzag
        return rank_by(i_L + j_L, torch.where(backwards_L, -i_L, i_L))


@dataclass(frozen=True)
class CentreOut(PixelOrdering):
    """By distance from the centre, ties in raster order."""

    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def pixels(self, plane: Grid) -> torch.Tensor:
        # twice the offset from the centre: whole numbers, so that ties are exact
        offset_LD = 2 * plane.coordinates() - (torch.tensor(plane.shape) - 1)
        return rank_by(offset_LD.square().sum(1))


Corner = Literal["top-left", "top-right", "bottom-right", "bottom-left"]


@dataclass(frozen=True)
class Spiral(PixelOrdering):
    """Ring by ring, inward or outward, around the centre or a corner.

    Around the centre, an inward spiral starts at ``corner`` and an outward one ends there; an outward spiral is an
    inward one travelled backwards, so consecutive pixels touch on every H×W grid. The spirals of the VQGAN and RAR
    ablations (arXiv 2012.09841, 2411.00776) are ``corner=bottom-right``, inward with ``clockwise=false``.
    Around the corner, quarter rings of pixels equally far from ``corner`` are swept there and back: outward from it or
    inward to it. This too is unbroken, but for one jump on some grids that are not square.
    """

    inward: bool = option(True, words=("outward", "inward"))
    clockwise: bool = True  # the sense of travel (around a corner: of its second quarter ring)
    around: Literal["centre", "corner"] = "centre"
    corner: Corner = "top-left"

    def pixels(self, plane: Grid) -> torch.Tensor:
        around, backwards = (_rings, not self.inward) if self.around == "centre" else (_quarter_rings, self.inward)
        turns = get_args(Corner).index(self.corner)  # clockwise quarter turns of the top left corner to this one
        height, width = plane.shape[::-1] if turns % 2 else plane.shape
        # travelled backwards, a clockwise path turns anticlockwise
        rank = around(height, width) if self.clockwise != backwards else around(width, height).T
        rank_L = torch.rot90(rank, -turns).reshape(-1)
        return len(plane) - 1 - rank_L if backwards else rank_L


def _rings(height: int, width: int) -> torch.Tensor:
    """Return the clockwise inward rank (height, width): by ring, then by the length walked along the ring."""
    i_L, j_L = Grid((height, width)).coordinates().unbind(1)
    ring_L = torch.stack([i_L, j_L, height - 1 - i_L, width - 1 - j_L]).amin(0)
    i_L, j_L = i_L - ring_L, j_L - ring_L
    bottom_L, right_L = height - 1 - 2 * ring_L, width - 1 - 2 * ring_L  # the ring's last row and column
    left_side_L = 2 * right_L + bottom_L + (bottom_L - i_L)
    walked_L = torch.where(i_L == bottom_L, right_L + bottom_L + (right_L - j_L), left_side_L)
    walked_L = torch.where(j_L == right_L, right_L + i_L, walked_L)
    walked_L = torch.where(i_L == 0, j_L, walked_L)
    return rank_by(ring_L, walked_L).reshape(height, width)


def _quarter_rings(height: int, width: int) -> torch.Tensor:
    """Return the outward rank from the top left: pixels with max(i, j) = k, clockwise for odd k and back for even."""
    i_L, j_L = Grid((height, width)).coordinates().unbind(1)
    ring_L = torch.maximum(i_L, j_L)
    walked_L = torch.where(j_L == ring_L, i_L, 2 * ring_L - j_L)
    return rank_by(ring_L, torch.where(ring_L % 2 == 1, walked_L, -walked_L)).reshape(height, width)


@dataclass(frozen=True)
class Subsample(PixelOrdering):
    """Coarse to fine, by nested sub-grids.

    Every second pixel in each direction comes first, itself ordered likewise, then the other phases (even, odd),
    (odd, even), (odd, odd): the order of the VQGAN ablation (arXiv 2012.09841) and of RAR (arXiv 2411.00776). On a 1-D
    grid it is the bit-reversed order. With ``levels`` the halving stops early and each sub-grid is a raster scan:
    2 levels give the 4×4 sub-images of subscale pixel networks (arXiv 1812.01608), in nested order.
    """

    levels: int | None = option(None, least=1)  # how many halvings; none: down to single pixels
    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def pixels(self, plane: Grid) -> torch.Tensor:
        bits = (max(plane.shape) - 1).bit_length()
        phase_L = torch.zeros(len(plane), dtype=torch.int64)
        for level in range(bits if self.levels is None else min(self.levels, bits)):
            for coordinate_L in plane.coordinates().unbind(1):
                phase_L = 2 * phase_L + ((coordinate_L >> level) & 1)
        return rank_by(phase_L)


@dataclass(frozen=True)
class Checkerboard(Ordering):
    """One colour of a checkerboard, then the other, each in raster order, or in that of ``inner``."""

    inner: Ordering = field(default=Raster(), metadata={"omitted": True})  # of the pixels of a colour
    time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", self.inner.random)

    def at(self, progress: float) -> Checkerboard:
        return replace(self, inner=self.inner.at(progress))

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        plane = Grid(grid.frame.shape[:2])
        rank_BL = self.inner.ranks(plane, batch, generator)
        colour_L = (plane.coordinates().sum(1) % 2).to(rank_BL.device)
        rank_BL = inverse(argsort_whole(colour_L * len(plane) + rank_BL))
        channels = torch.arange(len(grid.frame) // len(plane), device=rank_BL.device)
        return grid.each_frame((rank_BL[:, :, None] * len(channels) + channels).flatten(1))

"""Space-filling orders: Hilbert on any rectangle, Morton, and Halton's low-discrepancy sequence.

B batch · L tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orderings.base import PixelOrdering, Source, inverse, option, rank_by
from orderings.grid import Grid, torch


@dataclass(frozen=True)
class Hilbert(PixelOrdering):
    """Hilbert's space-filling curve, on any rectangle.

    After Červený's "generalized Hilbert curve" (2018). It starts at the top left and ends at the far end of the longer
    side. Consecutive pixels touch, except for one diagonal step when the longer side is odd and the shorter even.
    """

    def pixels(self, plane: Grid) -> torch.Tensor:
        height, width = plane.shape
        path: list[int] = []
        if width >= height:
            _walk(path, 0, 1, width, width, height)
        else:
            _walk(path, 0, width, height, 1, width)
        return inverse(torch.tensor(path))


def _walk(path: list[int], start: int, a: int, n: int, b: int, m: int) -> None:
    """Append the pixels of the rectangle that spans n steps of ``a`` by m steps of ``b`` from pixel ``start``.

    ``a`` and ``b`` are increments of the pixel's number. The walk begins at ``start`` and ends n-1 steps along ``a``.
    """
    if m == 1 or n == 1:
        path.extend(start + a * k for k in range(n)) if m == 1 else path.extend(start + b * k for k in range(m))
        return
    # halves are even where possible: an even side lets the walk return to the side it came from
    half_n, half_m = (n + (a < 0)) // 2, (m + (b < 0)) // 2  # rounded as published: down along +, up along -
    even_n, even_m = half_n + half_n % 2 * (n > 2), half_m + half_m % 2 * (m > 2)
    if 2 * n > 3 * m:  # long: two rectangles one after the other
        _walk(path, start, a, even_n, b, m)
        _walk(path, start + a * even_n, a, n - even_n, b, m)
        return
    _walk(path, start, b, even_m, a, half_n)  # up,
    _walk(path, start + b * even_m, a, n, b, m - even_m)  # along,
    _walk(path, start + a * (n - 1) + b * (even_m - 1), -b, even_m, -a, n - half_n)  # and down


@dataclass(frozen=True)
class Morton(PixelOrdering):
    """Z-order curve: by the interleaved bits of row and column, on any rectangle (Morton 1966; RAR's "z-curve")."""

    def pixels(self, plane: Grid) -> torch.Tensor:
        i_L, j_L = plane.coordinates().unbind(1)
        code_L = torch.zeros_like(i_L)
        for bit in range(max(plane.shape).bit_length()):
            code_L |= ((i_L >> bit) & 1) << (2 * bit + 1) | ((j_L >> bit) & 1) << (2 * bit)
        return rank_by(code_L)


@dataclass(frozen=True)
class Halton(PixelOrdering):
    """Low-discrepancy points, spread evenly at any moment; rolled for each image.

    Pixels come in the order in which Halton's points (base 2 for rows, 3 for columns) first fall into them: the Halton
    scheduler (Besnier et al., ICLR 2025); base 2 alone (van der Corput) on a 1-D grid. With ``roll`` every row starts
    somewhere else in the sequence.
    """

    roll: bool = option(True, words=("fixed", "rolled"))
    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", self.roll)

    def pixels(self, plane: Grid) -> torch.Tensor:
        points = 2 * len(plane)
        while True:  # draw points until every pixel has been hit; 24 points a pixel always suffice
            pixel = torch.zeros(points, dtype=torch.int64)
            for size, base in zip(plane.shape, (2, 3), strict=False):
                pixel = pixel * size + _radical_inverse_cell(points, base, size)
            first = torch.full((len(plane),), points).scatter_reduce_(0, pixel, torch.arange(points), "amin")
            if int(first.max()) < points:
                return inverse(torch.argsort(first))
            points *= 2

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        rank_BL = super().ranks(grid, batch, generator)
        if not self.roll:
            return rank_BL
        pixels, length = len(Grid(grid.frame.shape[:2])), len(grid.frame)
        shift_B1 = (generator.uniform(1) * pixels).long().clamp(max=pixels - 1)
        rank_BL = rank_BL.to(shift_B1.device)
        return rank_BL // length * length + (rank_BL + shift_B1 * (length // pixels)) % length


def _radical_inverse_cell(points: int, base: int, size: int) -> torch.Tensor:
    """Return floor(size · φ_base(n)) for n = 1..points, in whole numbers: no point is on the wrong side of an edge."""
    n = torch.arange(1, points + 1)
    mirrored, scale = torch.zeros_like(n), 1
    while scale <= points:
        mirrored = mirrored * base + n % base
        n, scale = n // base, scale * base
    return mirrored * size // scale

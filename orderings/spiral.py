"""Spirals: rings around the centre, or quarter rings around a corner.

L tokens · i row · j column
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from orderings.base import PixelOrdering
from orderings.grid import Grid
from orderings.ranking import rank_by

Corner = Literal["top-left", "top-right", "bottom-right", "bottom-left"]


@dataclass(frozen=True)
class Spiral(PixelOrdering):
    """Ring by ring; consecutive pixels touch. 2-D and 3-D (a pixel's channels consecutively).

    Around the centre, an inward spiral starts at ``corner`` and an outward one ends there; an outward spiral is an
    inward one travelled backwards, so that both are unbroken on every H×W grid. The spirals of the VQGAN and RAR
    ablations (arXiv 2012.09841, 2411.00776) are ``corner=bottom-right``, inward with ``clockwise=false``.
    Around the corner, quarter rings of pixels equally far from ``corner`` are swept there and back: outward from it or
    inward to it. This too is unbroken, but for one jump on some grids that are not square.
    """

    inward: bool = field(default=True, metadata={"words": ("outward", "inward")})
    clockwise: bool = True  # the sense of travel (around a corner: of its second quarter ring)
    around: Literal["centre", "corner"] = "centre"
    corner: Corner = "top-left"
    summary: ClassVar[str] = "ring by ring, inward or outward, around the centre or a corner"

    def pixels(self, plane: Grid) -> torch.Tensor:
        if self.around == "centre":
            backwards = not self.inward  # travelled backwards, a clockwise path turns anticlockwise
            rank_L = _rings(*_seen_from(plane, self.corner, self.clockwise != backwards))
        else:
            backwards = self.inward
            rank_L = _quarter_rings(*_seen_from(plane, self.corner, self.clockwise != backwards))
        return len(plane) - 1 - rank_L if backwards else rank_L


def _seen_from(plane: Grid, corner: Corner, clockwise: bool) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """(i_L, j_L, height, width) after turning ``corner`` to the top left; mirrored when not clockwise."""
    height, width = plane.shape
    i_L, j_L = plane.coordinates().unbind(1)
    if corner == "top-right":
        i_L, j_L, height, width = width - 1 - j_L, i_L, width, height
    elif corner == "bottom-right":
        i_L, j_L = height - 1 - i_L, width - 1 - j_L
    elif corner == "bottom-left":
        i_L, j_L, height, width = j_L, height - 1 - i_L, width, height
    return (i_L, j_L, height, width) if clockwise else (j_L, i_L, width, height)


def _rings(i_L: torch.Tensor, j_L: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Clockwise inward rank from the top left: by ring, then by the length walked along the ring."""
    ring_L = torch.stack([i_L, j_L, height - 1 - i_L, width - 1 - j_L]).amin(0)
    i_L, j_L = i_L - ring_L, j_L - ring_L
    bottom_L, right_L = height - 1 - 2 * ring_L, width - 1 - 2 * ring_L  # the ring's last row and column
    left_side_L = 2 * right_L + bottom_L + (bottom_L - i_L)
    walked_L = torch.where(i_L == bottom_L, right_L + bottom_L + (right_L - j_L), left_side_L)
    walked_L = torch.where(j_L == right_L, right_L + i_L, walked_L)
    walked_L = torch.where(i_L == 0, j_L, walked_L)
    return rank_by(ring_L, walked_L)


def _quarter_rings(i_L: torch.Tensor, j_L: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Outward rank from the top left corner: pixels with max(i, j) = k, swept clockwise for odd k and back for even."""
    ring_L = torch.maximum(i_L, j_L)
    walked_L = torch.where(j_L == ring_L, i_L, 2 * ring_L - j_L)
    return rank_by(ring_L, torch.where(ring_L % 2 == 1, walked_L, -walked_L))

"""Where tokens lie in a picture, and the animation of a plan, cell by cell.

L tokens · K AR steps
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orderings.base import ABSENT, GIVEN
from orderings.grid import Grid
from orderings.plan import Plan

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = "viridis"  # dark first, bright last; even in lightness, and legible to the colour-blind
INK, PAPER, PANEL = "#1f2430", "#ffffff", "#f4f5f8"
GIVEN_GREY, UNKNOWN, NOW = "#c9cdd6", "#e9ebf0", "#e4572e"
LINE = 64  # tokens on a line of a 1-D grid


@dataclass(frozen=True)
class Canvas:
    """Where each token is drawn: cell (row_L, column_L) of ``height`` × ``width``."""

    row_L: np.ndarray
    column_L: np.ndarray
    height: int
    width: int

    @classmethod
    def of(cls, grid: Grid) -> Canvas:
        place_LD = grid.coordinates().numpy()
        if grid.ndim == 1:
            width = min(len(grid), LINE)
            return cls(place_LD[:, 0] // width, place_LD[:, 0] % width, -(-len(grid) // width), width)
        if grid.ndim == 2:
            return cls(place_LD[:, 0], place_LD[:, 1], *grid.shape)
        height, width, channels = grid.shape
        column_L = place_LD[:, 1] + place_LD[:, 2] * (width + 1)  # an empty column between channels
        return cls(place_LD[:, 0], column_L, height, channels * (width + 1) - 1)

    def fill(self, value_L: np.ndarray) -> np.ndarray:
        """The values in their cells; NaN where there is no token."""
        cells = np.full((self.height, self.width), np.nan)
        cells[self.row_L, self.column_L] = value_L
        return cells


def one_row(plan: Plan, row: int) -> tuple[np.ndarray, np.ndarray]:
    """rank_L and step_L of one row."""
    return plan.rank_BL[row].cpu().numpy(), plan.step_BL[row].cpu().numpy()


def scored(value_L: np.ndarray) -> np.ndarray:
    """Which entries of a rank_L or step_L are neither GIVEN nor ABSENT."""
    return (value_L > GIVEN) & (value_L < ABSENT)


def animation(plan: Plan, grid: Grid, row: int = 0, most: int = 150) -> list[Image]:
    """One frame for each AR step (at most ``most``, evenly chosen): past steps in colour, the present one in red."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb
    from PIL import Image as Pillow

    rank_L, step_L = one_row(plan, row)
    canvas, n_steps = Canvas.of(grid), int(plan.n_steps_B[row])
    scale = max(4, min(28, 420 // max(canvas.height, canvas.width)))
    colour_L3 = colormaps[COLOURS](np.clip(rank_L, 0, None) / max(1, scored(rank_L).sum() - 1))[:, :3]
    frames = []
    shown = np.unique(np.linspace(-1, n_steps, min(n_steps + 2, most)).astype(int))  # before the first, after the last
    for before, now in zip([-1, *shown[:-1]], shown, strict=True):
        cell_L3 = np.where((step_L <= now)[:, None], colour_L3, to_rgb(UNKNOWN))
        cell_L3[(step_L > before) & (step_L <= now) & scored(step_L)] = to_rgb(NOW)
        cell_L3[step_L == GIVEN] = to_rgb(GIVEN_GREY)
        pixels = np.ones((canvas.height, canvas.width, 3))
        present_L = step_L != ABSENT
        pixels[canvas.row_L[present_L], canvas.column_L[present_L]] = cell_L3[present_L]
        large = (255 * pixels).round().astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
        large[::scale], large[:, ::scale] = 255, 255  # a white line between cells
        frames.append(Pillow.fromarray(large).quantize(colors=255, dither=Pillow.Dither.NONE))
    return frames

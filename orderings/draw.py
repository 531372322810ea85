"""Pictures of plans: rank heat map, step map, the path over the grid, a gallery, an animation.

L tokens · K AR steps

A 2-D grid is drawn as it lies; a 1-D one as lines of text; a 3-D one with its channels or frames side by side.
matplotlib and Pillow are imported when a picture is made.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orderings.base import ABSENT, GIVEN
from orderings.grid import Grid, InvalidRequest
from orderings.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image


COLOURS = "viridis"  # dark first, bright last; even in lightness, and legible to the colour-blind
INK, PAPER, PANEL = "#1f2430", "#ffffff", "#f4f5f8"
GIVEN_GREY, UNKNOWN, NOW = "#c9cdd6", "#e9ebf0", "#e4572e"
LINE = 64  # tokens on a line of a 1-D grid


def palette(n: int) -> list[str]:
    """Return ``n`` colours "#rrggbb", from the first step to the last."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps[COLOURS](k / max(1, n - 1))) for k in range(n)]


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
        layer, row, column = (0, 1, 2) if grid.time else (2, 0, 1)  # the axes: frames, or channels
        layers, height, width = (grid.shape[axis] for axis in (layer, row, column))
        column_L = place_LD[:, column] + place_LD[:, layer] * (width + 1)  # an empty column between them
        return cls(place_LD[:, row], column_L, height, layers * (width + 1) - 1)

    def fill(self, value_L: np.ndarray) -> np.ndarray:
        """Return the values in their cells; NaN where there is no token."""
        cells = np.full((self.height, self.width), np.nan)
        cells[self.row_L, self.column_L] = value_L
        return cells


def _scored(value_L: np.ndarray) -> np.ndarray:
    """Return the entries of a rank_L or step_L that are neither GIVEN nor ABSENT, as a mask."""
    return (value_L > GIVEN) & (value_L < ABSENT)


def animation(plan: Plan, grid: Grid, row: int = 0, most: int = 150) -> list[Image]:
    """Return a frame for each AR step (at most ``most``, evenly chosen): past steps in colour, the present in red."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb
    from PIL import Image as Pillow

    rank_L, step_L = plan.rank_BL[row].cpu().numpy(), plan.step_BL[row].cpu().numpy()
    canvas, n_steps, present_L = Canvas.of(grid), int(plan.n_steps_B[row]), step_L != ABSENT
    scale = max(4, min(28, 420 // max(canvas.height, canvas.width)))
    colour_L3 = colormaps[COLOURS](np.clip(rank_L, 0, None) / max(1, _scored(rank_L).sum() - 1))[:, :3]
    frames = []
    shown = np.unique(np.linspace(-1, n_steps, min(n_steps + 2, most)).astype(int))  # before the first, after the last
    for before, now in zip([-1, *shown[:-1]], shown, strict=True):
        cell_L3 = np.where((step_L <= now)[:, None], colour_L3, to_rgb(UNKNOWN))
        cell_L3[(step_L > before) & (step_L <= now) & _scored(step_L)] = to_rgb(NOW)
        cell_L3[step_L == GIVEN] = to_rgb(GIVEN_GREY)
        pixels = np.ones((canvas.height, canvas.width, 3))
        pixels[canvas.row_L[present_L], canvas.column_L[present_L]] = cell_L3[present_L]
        large = (255 * pixels).round().astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
        large[::scale], large[:, ::scale] = 255, 255  # a white line between cells
        frames.append(Pillow.fromarray(large).quantize(colors=255, dither=Pillow.Dither.NONE))
    return frames


def figure(plan: Plan, grid: Grid, row: int = 0, title: str = "") -> Figure:
    """Return three panels of one row of a plan: when each token comes (its rank), in which AR step, and the path.

    The path joins the tokens in the order of their ranks; long jumps are thin. With channels it is that of the pixels;
    on a 1-D grid the third panel plots rank against position.
    """
    from matplotlib.figure import Figure

    canvas = Canvas.of(grid)
    aspect = canvas.height / canvas.width
    tall = aspect < 0.4  # wide grids: panels one above the other
    size = (9.0, 2 * (8.0 * aspect + 0.7) + 2.8) if tall else (12.5, 3.6 * min(aspect, 2.5) + 0.8)
    picture = Figure(figsize=size, facecolor=PAPER, layout="constrained")
    ratios = {"height_ratios": [aspect + 0.08, aspect + 0.08, 0.3]} if tall else {}
    axes: Any = picture.subplots(3 if tall else 1, 1 if tall else 3, gridspec_kw=ratios)
    rank_L, step_L = plan.rank_BL[row].cpu().numpy(), plan.step_BL[row].cpu().numpy()
    names = ("rank", f"AR step (of {int(plan.n_steps_B[row])})")
    for axis, value_L, name in zip(axes, (rank_L, step_L), names, strict=False):
        bar = picture.colorbar(_cells(axis, canvas, value_L), cax=axis.inset_axes((1.02, 0.0, 0.025, 1.0)))
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(labelsize=8, color=INK, labelcolor=INK, length=2)
        axis.set_title(name, fontsize=11, color=INK)
        _name_axes(axis, grid)
        if max(canvas.height, canvas.width) <= 16:
            _numbers(axis, canvas, value_L)
    _path(axes[2], grid, rank_L)
    if title:
        picture.suptitle(title + "\n", fontsize=13, color=INK, fontfamily="monospace")
    return picture


def gallery(plans: Mapping[str, Plan], grid: Grid, columns: int = 6) -> Figure:
    """Return a small map of AR steps for each plan's first row, over a bar of their colours, with its path where that
    mostly moves to neighbours."""
    from matplotlib.figure import Figure

    canvas = Canvas.of(grid)
    columns = min(columns, len(plans))
    rows = -(-len(plans) // columns)
    tall = max(0.2, 2.0 * canvas.height / canvas.width)  # inches of a map
    high = rows * (tall + 0.5) + 0.3
    picture = Figure(figsize=(2.1 * columns, high), facecolor=PAPER)
    axes: Any = picture.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.08, "hspace": 0.5 / tall})
    for axis in axes.flat[len(plans) :]:
        axis.set_axis_off()
    for axis, (name, plan) in zip(axes.flat, plans.items(), strict=False):
        step_L = plan.step_BL[0].cpu().numpy()
        bar = picture.colorbar(
            _cells(axis, canvas, step_L),
            cax=axis.inset_axes((0.0, -0.12 / tall, 1.0, 0.06 / tall)),
            orientation="horizontal",
        )
        last = int(plan.n_steps_B[0]) - 1
        bar.set_ticks([0, max(1, last)], labels=["step 0", str(last) if last else ""])
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(labelsize=6, labelcolor=INK, length=0, pad=1)
        for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
            label.set_horizontalalignment(side)
        points = _walk(canvas, plan.rank_BL[0].cpu().numpy())
        one_by_one = (np.bincount(step_L[_scored(step_L)]) == 1).all()
        if one_by_one and len(points) > 1 and np.median(abs(np.diff(points, axis=0)).max(1)) <= 1:
            _line(axis, points, colour=PAPER, width=0.9)
        font = min(9.0, 200.0 / max(1, len(name)))
        axis.set_title(name, fontsize=font, color=INK, pad=4, fontfamily="monospace")
    picture.subplots_adjust(left=0.01, right=0.99, bottom=0.45 / high, top=1 - 0.3 / high)
    legend = "colour: AR step, dark first, light last; white line: path from the red dot to the square"
    picture.text(0.5, 0.02 / high, legend, ha="center", va="bottom", fontsize=8, color=INK)
    return picture


def png(picture: Figure, dpi: int = 110) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=dpi, facecolor=PAPER, bbox_inches="tight", pad_inches=0.08)
    return buffer.getvalue()


def save(plan: Plan, grid: Grid, path: str | Path, row: int = 0, title: str = "") -> Path:
    """Write a .png (three panels) or a .gif (the generation, step by step). Raise InvalidRequest for other names."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".gif"):
        raise InvalidRequest(f"a picture's name ends in .png or .gif, not {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        path.write_bytes(png(figure(plan, grid, row, title)))
    else:
        frames = animation(plan, grid, row)
        milliseconds = [max(40, min(300, 6000 // len(frames)))] * (len(frames) - 1) + [1500]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return path


def _cells(axis: Axes, canvas: Canvas, value_L: np.ndarray) -> Any:
    """Draw the tokens' cells in colour, given tokens grey, absent ones blank; return the image."""
    from matplotlib import colormaps

    cells = canvas.fill(np.where(value_L == ABSENT, np.nan, value_L))
    largest = max(1, int(value_L[_scored(value_L)].max(initial=0)))
    colours = colormaps[COLOURS].with_extremes(under=GIVEN_GREY)  # GIVEN is below 0
    image = axis.imshow(cells, cmap=colours, vmin=0, vmax=largest, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if max(canvas.height, canvas.width) <= 64:  # a white line between cells
        axis.set_xticks(np.arange(0.5, canvas.width - 1), minor=True)
        axis.set_yticks(np.arange(0.5, canvas.height - 1), minor=True)
        axis.grid(which="minor", color=PAPER, linewidth=0.5)
        axis.tick_params(which="minor", length=0)
    return image


def _numbers(axis: Axes, canvas: Canvas, value_L: np.ndarray) -> None:
    largest = max(1, int(value_L[_scored(value_L)].max(initial=0)))
    for row, column, value in zip(canvas.row_L, canvas.column_L, value_L, strict=True):
        if GIVEN < value < ABSENT:
            colour = INK if value > 0.6 * largest else PAPER
            axis.text(column, row, str(value), ha="center", va="center", fontsize=6.5, color=colour)


def _name_axes(axis: Axes, grid: Grid) -> None:
    line = f"position in a line of {min(len(grid), LINE)}"
    aside = f"column, {'frames' if grid.time else 'channels'} side by side"
    across = {1: line, 2: "column", 3: aside}[grid.ndim]
    axis.set_xlabel(across, fontsize=8, color=INK)
    axis.set_ylabel("line" if grid.ndim == 1 else "row", fontsize=8, color=INK)


def _path(axis: Axes, grid: Grid, rank_L: np.ndarray) -> None:
    axis.set_facecolor(PANEL)
    axis.spines[:].set_visible(False)
    axis.set_title("rank against position" if grid.ndim == 1 else "path", fontsize=11, color=INK)
    if grid.ndim == 1:
        place_L = np.flatnonzero(_scored(rank_L))
        axis.scatter(place_L, rank_L[place_L], c=rank_L[place_L], cmap=COLOURS, s=12)
        axis.tick_params(labelsize=8, color=INK, labelcolor=INK, length=2)
        axis.set_xlabel("position", fontsize=8, color=INK)
        axis.set_ylabel("rank", fontsize=8, color=INK)
        return
    plane = Canvas.of(grid if grid.time else Grid(grid.shape[:2]))
    axis.set(xlim=(-0.5, plane.width - 0.5), ylim=(plane.height - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
    _name_axes(axis, grid if grid.time else Grid(grid.shape[:2]))
    _line(axis, _walk(plane, rank_L), colour=None, width=max(0.8, min(3.0, 45 / max(plane.height, plane.width))))


def _walk(canvas: Canvas, rank_L: np.ndarray) -> np.ndarray:
    """Return (N, 2): places x, y of the tokens to generate, in the order of ranks, channels of a pixel as one."""
    visited = np.flatnonzero(_scored(rank_L))
    pixel = visited[np.argsort(rank_L[visited])] // (len(rank_L) // len(canvas.row_L))
    pixel = pixel[np.diff(pixel, prepend=-1) != 0]
    return np.stack([canvas.column_L[pixel], canvas.row_L[pixel]], axis=1).astype(float)


def _line(axis: Axes, points: np.ndarray, colour: str | None, width: float) -> None:
    """Join the points, all in ``colour`` or coloured by their place in the walk, from a dot to a square."""
    from matplotlib.collections import LineCollection

    if len(points) == 0:
        return
    if len(points) > 1:
        pieces = np.stack([points[:-1], points[1:]], axis=1)
        far = abs(pieces[:, 1] - pieces[:, 0]).max(1) > 1  # jumps are thin and faint
        thin = min(0.7, width)
        widths = np.where(far, thin, thin if far.mean() > 0.8 else width).tolist()
        lines = LineCollection(
            pieces.tolist(), linewidths=widths, alpha=np.where(far, 0.45, 1.0).tolist(), capstyle="round"
        )
        lines.set(**({"color": colour} if colour else {"array": np.arange(len(pieces)), "cmap": COLOURS}))
        axis.add_collection(lines)
    size = 4.5 * math.sqrt(width)
    axis.plot(*points[0], "o", color=NOW, markersize=size, zorder=3)
    axis.plot(*points[-1], "s", color=colour or INK, markersize=0.8 * size, zorder=3)

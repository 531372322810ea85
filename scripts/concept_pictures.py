"""Draw the pictures of docs/concepts.md and README.md from real plans: ``python scripts/concept_pictures.py docs``.

L tokens · K AR steps
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.patches import Rectangle

from orderings import Grid, Plan, PlanSpec, Seeded, parse_ordering

PLAN, GRID, FIVE = "spiral/cosine:5", Grid((4, 4)), Grid((5, 5))
NOW = "#e4572e"
KNOWN, TARGET, UNKNOWN = "#4c72b0", "#f0a63c", "#ececec"


def draw_plan(text: str, given_L: torch.Tensor | None = None) -> Plan:
    """One row of a plan on the grid of the pictures."""
    ordering, partition = PlanSpec.parse(text)
    given_BL = None if given_L is None else given_L[None]
    return Plan.sample(ordering, partition, GRID, 1, Seeded(1, torch.Generator().manual_seed(0)), given_BL=given_BL)


def cells(
    axes: Axes, value_L: torch.Tensor, colour: list[str], title: str, grid: Grid = GRID, ink: Sequence[str] = ()
) -> None:
    """A grid of coloured cells with a number in each, in the colours ``ink``."""
    rows, columns = grid.shape
    for token, value in enumerate(value_L.tolist()):
        row, column = divmod(token, columns)
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour[token], edgecolor="white", linewidth=2))
        axes.text(column + 0.5, row + 0.5, str(value), ha="center", va="center", fontsize=11,
                  color=ink[token] if ink else "black")  # fmt: skip
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", title=title)
    axes.axis("off")


def shades(value_L: torch.Tensor) -> list[str]:
    """Light for early, orange-red for late; text stays readable on each."""
    scale = plt.get_cmap("YlOrRd")
    largest = max(1, int(value_L.max()))
    return [to_hex(scale(0.08 + 0.6 * max(0, v) / largest)) for v in value_L.tolist()]


def step_picture() -> plt.Figure:
    """Rank, set sizes, step: how an ordering and a partition become ``step_BL``."""
    plan = draw_plan(PLAN)
    rank_L, step_L, sizes_K = plan.rank_BL[0], plan.step_BL[0], plan.sizes()[0]
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.1), gridspec_kw={"width_ratios": [1, 1.35, 1]})
    cells(axes[0], rank_L, shades(rank_L), "ordering: rank_L")
    cells(axes[2], step_L, shades(step_L), "plan: step_L")
    colour, rank = shades(torch.arange(len(sizes_K))), 0
    for step, size in enumerate(sizes_K.tolist()):
        axes[1].add_patch(Rectangle((rank, 0), size, 1, facecolor=colour[step], edgecolor="white", linewidth=2))
        axes[1].text(rank + size / 2, 0.5, str(step), ha="center", va="center")
        axes[1].text(rank + size / 2, 1.2, f"{size}", ha="center", va="top", fontsize=9)
        rank += size
    axes[1].text(-0.3, 0.5, "step", ha="right", va="center", fontsize=9)
    axes[1].text(-0.3, 1.2, "tokens", ha="right", va="top", fontsize=9)
    axes[1].set(xlim=(-3.2, len(rank_L)), ylim=(2.2, -0.8), title="partition: ranks cut into sets")
    axes[1].axis("off")
    figure.suptitle(f"plan {PLAN} on a {GRID.shape[0]}×{GRID.shape[1]} grid", y=1.1)
    return figure


def mask_picture() -> plt.Figure:
    """``step_L`` read as known and target tokens at each step, and as an attention mask in two orders of the tokens."""
    plan = draw_plan(PLAN)
    step_L, n_steps = plan.step_BL[0], int(plan.n_steps_B[0])
    figure = plt.figure(figsize=(9.6, 6.0))
    grid = figure.add_gridspec(2, 2 * n_steps, height_ratios=[1, 1.6], hspace=0.45)
    for step in range(n_steps):
        colour = [KNOWN if s < step else TARGET if s == step else UNKNOWN for s in step_L.tolist()]
        cells(figure.add_subplot(grid[0, 2 * step : 2 * step + 2]), step_L, colour, f"step {step}")
    orders = [("in grid order", torch.arange(len(step_L))), ("in generation order", plan.rank_BL[0].argsort())]
    for place, (label, order_L) in enumerate(orders):
        axes = figure.add_subplot(grid[1, 5 * place : 5 * place + 5])
        sees_LL = step_L[order_L, None] > step_L[None, order_L]
        axes.imshow(sees_LL, cmap=ListedColormap([UNKNOWN, KNOWN]), vmin=0, vmax=1)
        axes.set(title=f"step[query] > step[key], {label}", xlabel="key token", ylabel="query token")
        axes.set_xticks(range(len(step_L)), [str(i) for i in order_L.tolist()], fontsize=6)
        axes.set_yticks(range(len(step_L)), [str(i) for i in order_L.tolist()], fontsize=6)
    keys = [(KNOWN, "known, or visible"), (TARGET, "target: predicted in this step"), (UNKNOWN, "unknown, or hidden")]
    handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour, _ in keys]
    figure.legend(handles, [name for _, name in keys], loc="upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def given_picture() -> plt.Figure:
    """Inpainting: the upper half is given, the rest keeps its relative order."""
    given_L = torch.arange(16) < 8
    plans = [("nothing given", draw_plan("raster/equal:4")), ("upper half GIVEN", draw_plan("raster/equal:4", given_L))]
    figure, axes = plt.subplots(1, 2, figsize=(6, 3.1))
    for place, (title, plan) in zip(axes, plans, strict=True):
        step_L = plan.step_BL[0]
        colour = [KNOWN if s < 0 else shade for s, shade in zip(step_L.tolist(), shades(step_L), strict=True)]
        cells(place, step_L, colour, title)
    figure.suptitle("raster/equal:4: step_L", y=1.02)
    return figure


def overview_picture() -> plt.Figure:
    """Four plans (columns): ``step_L``, the attention mask, and one step of the sampler and the likelihood."""
    plans = {"raster": 12, "spiral/cosine:6": 3, "subsample/equal:4": 3, "random/cosine:6": 3}
    figure, axes = plt.subplots(3, len(plans), figsize=(11, 8.4), gridspec_kw={"hspace": 0.24, "wspace": 0.1})
    for column, (text, at) in enumerate(plans.items()):
        generator = Seeded(1, torch.Generator().manual_seed(0))
        plan = Plan.sample(parse_ordering(text.partition("/")[0]), PlanSpec.parse(text).partition, FIVE, 1, generator)
        step_L, last = plan.step_BL[0], int(plan.n_steps_B[0]) - 1
        colours = [to_hex(plt.get_cmap("viridis")(s / last)) for s in step_L.tolist()]
        top, middle, bottom = axes[:, column]
        cells(top, step_L, colours, "", FIVE, ["black" if s > 0.6 * last else "white" for s in step_L.tolist()])
        top.set_title(text, family="monospace", fontsize=13)
        middle.imshow(step_L[:, None] > step_L[None], cmap=ListedColormap([UNKNOWN, KNOWN]), vmin=0, vmax=1)
        middle.set(xticks=[], yticks=[], xlabel="sees token", ylabel="" if column else "token")
        now = [KNOWN if s < at else NOW if s == at else UNKNOWN for s in step_L.tolist()]
        cells(bottom, step_L, now, "", FIVE, now)
        bottom.set_title(f"step {at} of 0–{last}: {int((step_L == at).sum())} at once", y=-0.15, fontsize=10)
    said = (
        ("1  step_BL", "the step at which each\ntoken is generated\n(equal numbers: together)"),
        ("2  attention mask", "token i sees token j\nif step[j] < step[i]"),
        ("3  sampler, likelihood", "blue: known; orange: drawn\nnow, scored with\n−log p(orange | blue)"),
    )
    for row, (title, text) in enumerate(said):
        axes[row, 0].text(-1.2, 0.78, title, transform=axes[row, 0].transAxes, fontsize=13, weight="bold")
        axes[row, 0].text(-1.2, 0.66, text, transform=axes[row, 0].transAxes, fontsize=10, va="top", color="#5a606c")
    return figure


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    plt.rcParams.update({"svg.hashsalt": "concepts", "svg.fonttype": "path", "axes.titlesize": 11})
    pictures = {"step": step_picture, "masks": mask_picture, "given": given_picture, "overview": overview_picture}
    for name, draw in pictures.items():
        figure = draw()
        figure.savefig(folder / f"concept-{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})

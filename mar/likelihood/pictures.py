"""What a likelihood looks like: the curve of conditional entropies along the order, and their map on the grid.

L tokens · K AR steps
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mar.likelihood.summary import Likelihood

_COLUMNS = 4  # of maps


def draw(likelihoods: Mapping[str, Likelihood], shape: tuple[int, ...], path: Path, title: str) -> None:
    """One picture for one or several plans: nats per token along the order with ± one standard error, and for grids of
    two or three dimensions the mean nats of each position (summed over channels), on one scale for all plans.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(likelihoods))
    rows = math.ceil(len(likelihoods) / columns) if len(shape) > 1 else 0
    figure = Figure(figsize=(9.0, 4.2 + 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [4.2] + [2.6] * rows
    spaces = figure.add_gridspec(1 + rows, columns if rows else 1, height_ratios=heights)
    _curves(figure.add_subplot(spaces[0, :]), likelihoods, title)
    if rows:
        axes = [figure.add_subplot(spaces[1 + k // columns, k % columns]) for k in range(len(likelihoods))]
        _maps(figure, axes, likelihoods, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _curves(axes: Axes, likelihoods: Mapping[str, Likelihood], title: str) -> None:
    for name, found in likelihoods.items():
        tokens_K = np.array(found.tokens_per_step)
        end_K = np.cumsum(tokens_K)
        middle_K = (end_K - tokens_K / 2) / end_K[-1]
        nats_K = np.array(found.nats_per_step) / tokens_K
        error_K = np.array(found.standard_error_per_step) / tokens_K
        known_K = np.isfinite(nats_K)
        middle_K, nats_K, error_K = middle_K[known_K], nats_K[known_K], error_K[known_K]
        (line,) = axes.plot(middle_K, nats_K, linewidth=1.2, label=name, marker="." if len(nats_K) < 40 else None)
        axes.fill_between(middle_K, nats_K - error_K, nats_K + error_K, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("place in the order, as a share of the tokens")
    axes.set_ylabel("nats per token")
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)


def _maps(figure: Figure, axes: list[Axes], likelihoods: Mapping[str, Likelihood], shape: tuple[int, ...]) -> None:
    maps = [np.reshape(found.nats_per_position, (*shape[:2], -1)).sum(-1) for found in likelihoods.values()]
    low, high = min(np.nanmin(m) for m in maps), max(np.nanmax(m) for m in maps)
    image: Any = None
    for one, name, values in zip(axes, likelihoods, maps, strict=True):
        image = one.imshow(values, vmin=low, vmax=high, cmap="viridis")
        one.set_title(name, fontsize=9)
        one.set_xticks([])
        one.set_yticks([])
    figure.colorbar(image, ax=axes, label="nats per position", shrink=0.9)

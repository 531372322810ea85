"""The picture of what parallel generation costs: a curve over the number of sets, and the best sets themselves.

K AR steps
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar.likelihood.set_sizes import Predicted

_COLOURS = {"optimal": "#1b6ca8", "equal": "#8a8f9c", "cosine": "#e4572e"}
_ASIDE = {"optimal": 1.0, "equal": 0.97, "cosine": 1.03}  # so that dots of one K do not hide each other


@dataclass(frozen=True)
class Tested:
    """A schedule's measured excess on the test split.

    Attributes:
        k, schedule: which.
        excess_nats: mean over images of its NLL minus that of one token at a time under the same orders.
        interval_nats: of that mean.
    """

    k: int
    schedule: str
    excess_nats: float
    interval_nats: tuple[float, float]


def draw_sets(title: str, predicted: Sequence[Predicted], tested: Sequence[Tested], path: Path) -> None:
    """A PNG: left the excess over K, lines predicted and dots tested; right the best sets of each tested K."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    for schedule in _COLOURS:
        _curve(axes[0], schedule, predicted, [row for row in tested if row.schedule == schedule])
    axes[0].set_xscale("log", base=2)
    axes[0].set(xlabel="sets K", ylabel="nats/image above one token at a time", title="cost of parallel generation")
    for row in predicted:
        if row.k in {dot.k for dot in tested}:
            place = [(step + 0.5) / row.k for step in range(row.k)]
            axes[1].plot(place, row.optimal_sizes, "o-", ms=3, label=f"K = {row.k}")
    axes[1].set(xlabel="share of the steps done", ylabel="tokens in the set", title="the best sets")
    for axis, base in zip(axes, (10, 2), strict=True):
        axis.set_yscale("log", base=base)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7)
        for numbers in (axis.xaxis, axis.yaxis):
            numbers.set_major_formatter(lambda value, _: f"{value:g}")
            numbers.set_minor_formatter("")
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _curve(axis: Any, schedule: str, predicted: Sequence[Predicted], tested: Sequence[Tested]) -> None:
    """One schedule; on a logarithmic axis what is not above one token at a time is left out."""
    colour = _COLOURS[schedule]
    points = [(row.k, row.excess_nats[schedule]) for row in predicted if row.excess_nats[schedule] > 0.0]
    axis.plot([k for k, _ in points], [nats for _, nats in points], color=colour, label=f"{schedule}, predicted")
    spread = [
        [row.excess_nats - row.interval_nats[0] for row in tested],
        [row.interval_nats[1] - row.excess_nats for row in tested],
    ]
    aside = _ASIDE[schedule]
    axis.errorbar(
        [aside * row.k for row in tested], [row.excess_nats for row in tested], spread,
        fmt="o", ms=4, color=colour, capsize=2, label=f"{schedule}, test",
    )  # fmt: skip

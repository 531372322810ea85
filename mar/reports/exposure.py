"""The picture of exposure bias: nats of each step on data and on samples, and what adds up to their difference.

K AR steps
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mar.likelihood.exposure import Curve, Exposure

_COLOURS = {"data": "#1b6ca8", "own": "#e4572e", "expected": "#6b7280"}
_NORMAL = 1.96  # standard errors of a 95 % interval


def draw_exposure(title: str, result: Exposure, path: Path) -> None:
    """A PNG: left nats per token of each step, right misfit and exposure summed, in nats per image; bands of 95 %."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.0), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    tokens_K = np.array(result.tokens_per_step)
    _band(axes[0], result.data, tokens_K, "data", "the data, after data")
    _band(axes[0], result.expected_after_data, tokens_K, "expected", "expected by the model, after data")
    _band(axes[0], result.own, tokens_K, "own", "its samples, after its samples")
    axes[0].set(xlabel="AR step", ylabel="nats per token", title="NLL of each step")
    one_K = np.ones_like(tokens_K)
    _band(axes[1], result.misfit_summed, one_K, "data", "misfit: data harder than expected")
    _band(axes[1], result.exposure_summed, one_K, "own", "exposure: expected after own minus after data")
    axes[1].axhline(0.0, color=_COLOURS["expected"], lw=0.8)
    axes[1].set(xlabel="AR step", ylabel="nats per image", title="summed up to the step")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _band(axis: Any, curve: Curve, per_K: np.ndarray, colour: str, label: str) -> None:
    mean_K, error_K = np.array(curve.nats) / per_K, np.array(curve.standard_error) / per_K
    step_K, colour = np.arange(len(mean_K)), _COLOURS[colour]
    axis.plot(step_K, mean_K, color=colour, label=label, lw=1.4, marker="o", ms=2)
    axis.fill_between(step_K, mean_K - _NORMAL * error_K, mean_K + _NORMAL * error_K, color=colour, alpha=0.18, lw=0)

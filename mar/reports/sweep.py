"""The picture of a sweep: FID over the first axis, a line for every setting and value of the other axes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path


def draw_sweep(file: Path) -> Path:
    """Draw the summary that ``mar.metrics.generated.sweep`` wrote; return the PNG beside it."""
    from matplotlib.figure import Figure

    content = json.loads(file.read_text())
    axes, n = content["axes"], content["n_images"]
    x, *others = axes
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axis = figure.add_subplot()
    for one in content["sweeps"]:
        for values in itertools.product(*(axes[key] for key in others)):
            fixed = dict(zip(others, values, strict=True))
            line = [point for point in one["points"] if all(point[key] == value for key, value in fixed.items())]
            name = " ".join([one["setting"], *(f"{key}={value}" for key, value in fixed.items())])
            numbers = all(isinstance(value, int | float) for value in axes[x])
            place = [point[x] if numbers else str(point[x]) for point in line]
            axis.plot(place, [point["fid"] for point in line], marker=".", linewidth=1.2, label=name)
    if floor := content["sweeps"][0]["points"][0]["noise_floor"]:
        axis.axhline(floor, color="grey", linewidth=0.8, linestyle=":", label="real images")
    axis.set(xlabel=x, ylabel="FID")
    axis.set_title(f"{n} images a point", fontsize=10)
    axis.legend(fontsize=8)
    figure.savefig(file.with_suffix(".png"), dpi=130)
    return file.with_suffix(".png")

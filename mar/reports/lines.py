"""NLL against a number, a line for each model, a panel for each data set: how the pictures of curves are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar.experiments.result import AblationResult, Row
from mar.experiments.statistics import nll_of, settings_without_seed

DATA = "data"  # the axis whose values have a panel of their own


@dataclass(frozen=True)
class Line:
    """What a row's number stands for (orders, steps) -> the NLL of each seed, bits/dim or nats."""

    name: str
    nll: dict[int, list[float]]


def lines_of(points: Iterable[tuple[Row, str, int]]) -> dict[str, list[Line]]:
    """The lines of each data set from scored rows, each with the name of its line and its number."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row, name, number in points:
        nll = nll_of(row)
        if nll is not None:
            of_data = found.setdefault(row.settings.get(DATA, ""), {})
            of_data.setdefault(name, {}).setdefault(number, []).append(nll)
    return {data: [Line(name, nll) for name, nll in named.items()] for data, named in found.items()}


def named_without(row: Row, *axes: str) -> str:
    """The settings of a row but for its seed, its data set and ``axes``."""
    return ", ".join(value for axis, value in settings_without_seed(row).items() if axis not in (DATA, *axes))


def draw(result: AblationResult, found: dict[str, list[Line]], label: str, path: Path) -> Path | None:
    """The mean over seeds and a band from the lowest to the highest, by doublings; a line of one point is dotted.

    Args:
        label: what the numbers are.

    Returns:
        ``path``; None, and no picture, where no line has two points.
    """
    from matplotlib.figure import Figure

    if not any(len(line.nll) > 1 for lines in found.values() for line in lines):
        return None
    figure = Figure(figsize=(4.6 * len(found), 3.4), layout="constrained")
    for panel, (data, lines) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        for number, line in enumerate(lines):
            _draw(panel, line, f"C{number % 10}")
        panel.set_title(data, fontsize=9)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.legend(fontsize=7, frameon=False)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25, linewidth=0.5)
    bits = any(row.likelihood is not None and row.likelihood.bits_per_dim is not None for row in result.rows)
    figure.supxlabel(label, fontsize=9)
    figure.supylabel("NLL, bits/dim" if bits else "NLL, nats", fontsize=9)
    figure.savefig(path, dpi=150)
    return path


def _draw(panel: Any, line: Line, colour: str) -> None:
    numbers = sorted(line.nll)
    mean = [math.fsum(line.nll[n]) / len(line.nll[n]) for n in numbers]
    if len(numbers) == 1:
        panel.axhline(mean[0], linestyle=":", linewidth=1.2, color=colour, label=line.name)
        return
    panel.plot(numbers, mean, "o-", markersize=3, linewidth=1.2, color=colour, label=line.name)
    low, high = ([of(line.nll[n]) for n in numbers] for of in (min, max))
    panel.fill_between(numbers, low, high, color=colour, alpha=0.2, linewidth=0)

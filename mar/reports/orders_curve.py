"""The NLL of mixtures of 1, 2, 4, … orders as one picture: EoNADE's curve (Uria, Murray & Larochelle 2014)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar.ablation.axes import ORDERS
from mar.ablation.result import AblationResult
from mar.ablation.seeds import nll_of, unseeded

_DATA = "data"  # the axis whose values have a panel of their own


@dataclass(frozen=True)
class Curve:
    """A model's mixtures: orders -> the NLL of each seed, bits/dim or nats. Of a fixed order there is one point."""

    name: str
    nll: dict[int, list[float]]


def curves(result: AblationResult) -> dict[str, list[Curve]]:
    """The curves of each data set; those of one name differ in their seed alone."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in result.rows:
        orders, nll = row.settings.get(ORDERS, ""), nll_of(row)
        if nll is None or not orders.isdecimal():  # "mean of 16" is no mixture
            continue
        name = ", ".join(value for axis, value in unseeded(row).items() if axis not in (ORDERS, _DATA)) or row.plan
        of_data = found.setdefault(row.settings.get(_DATA, ""), {})
        of_data.setdefault(name, {}).setdefault(int(orders), []).append(nll)
    return {data: [Curve(name, nll) for name, nll in lines.items()] for data, lines in found.items()}


def write_orders_curve(result: AblationResult, folder: Path) -> Path | None:
    """``orders-curve.png``: the mean over seeds, a band from the lowest to the highest; a fixed order is a dotted line.

    Returns its path; None, and no picture, where no row is a mixture of several orders.
    """
    from matplotlib.figure import Figure

    found = curves(result)
    if not any(len(curve.nll) > 1 for lines in found.values() for curve in lines):
        return None
    figure = Figure(figsize=(4.6 * len(found), 3.4), layout="constrained")
    for panel, (data, lines) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        for number, curve in enumerate(lines):
            _draw(panel, curve, f"C{number % 10}")
        panel.set_title(data, fontsize=9)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(lambda orders, _: f"{orders:g}")
        panel.legend(fontsize=7, frameon=False)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25, linewidth=0.5)
    bits = any(row.likelihood is not None and row.likelihood.bits_per_dim is not None for row in result.rows)
    figure.supxlabel("orders in the mixture", fontsize=9)
    figure.supylabel("NLL, bits/dim" if bits else "NLL, nats/image", fontsize=9)
    path = folder / "orders-curve.png"
    figure.savefig(path, dpi=150)
    return path


def _draw(panel: Any, curve: Curve, colour: str) -> None:
    orders = sorted(curve.nll)
    mean = [math.fsum(curve.nll[s]) / len(curve.nll[s]) for s in orders]
    if len(orders) == 1:
        panel.axhline(mean[0], linestyle=":", linewidth=1.2, color=colour, label=curve.name)
        return
    panel.plot(orders, mean, "o-", markersize=3, linewidth=1.2, color=colour, label=curve.name)
    low, high = ([of(curve.nll[s]) for s in orders] for of in (min, max))
    panel.fill_between(orders, low, high, color=colour, alpha=0.2, linewidth=0)

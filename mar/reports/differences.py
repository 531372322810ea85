"""The part of the page that shows every row's difference to its reference, with the interval."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from mar.experiments.result import AblationResult

Interval = tuple[int, str, float, float, float]  # row, its name, mean, low, high


def differences(result: AblationResult) -> str:
    """The section, a line of a plot for each difference (HTML); nothing without differences."""
    first = next((row.difference for row in result.rows if row.difference is not None), None)
    if first is None:
        return ""
    unit, digits = ("nats", 2) if first.bits_per_dim is None else ("bits/dim", 4)
    values = list(_intervals(result))
    low, high = min(0.0, *(v[3] for v in values)), max(0.0, *(v[4] for v in values))
    margin = 0.03 * ((high - low) or 1.0)
    scale = (low - margin, high + margin)
    other = ", other settings alike" if result.axes else ""
    return (
        f'<section id="differences"><h2>NLL against {escape(result.reference)}</h2><p class="hint">Mean paired '
        f"difference, {unit}, with its {100 * first.confidence:g} % interval over images; left of the line is "
        f"better than {escape(result.reference)}{other}.</p>"
        f'<div class="intervals">{"".join(_line(value, scale, digits) for value in values)}</div></section>'
    )


def _intervals(result: AblationResult) -> Iterator[Interval]:
    for number, row in enumerate(result.rows):
        d = row.difference
        if d is None:
            continue
        if d.bits_per_dim is None or d.interval_bits_per_dim is None:
            yield number, row.name, d.nats_per_image, *d.interval_nats
        else:
            yield number, row.name, d.bits_per_dim, *d.interval_bits_per_dim


def _line(value: Interval, scale: tuple[float, float], digits: int) -> str:
    number, name, mean, low, high = value

    def share(x: float) -> float:
        return 100 * (x - scale[0]) / (scale[1] - scale[0])

    return (
        f'<div class="interval" data-rows="{number}"><span class="name">{escape(name)}</span><div class="track">'
        f'<i class="zero" style="left:{share(0.0):.2f}%"></i>'
        f'<i class="range" style="left:{share(low):.2f}%;width:{share(high) - share(low):.2f}%"></i>'
        f'<i class="dot" style="left:{share(mean):.2f}%"></i></div>'
        f'<span class="number">{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]</span></div>'
    )

"""Quality against speed of generation: every row a point, with the front of those that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from mar.experiments.result import AblationResult, Row, generation_rates, measured_alone
from mar.likelihood.score import Likelihood
from mar.metrics.statistics import kind_of
from mar.reports.labels import FONT, Label, labels
from mar.reports.svg import Chart, Line, log_ticks

_WIDTH, _HEIGHT = 640, 420  # units of the drawing, points of the picture
_OF_LATENTS = "nats"  # the unit of what has no bits/dim


@dataclass(frozen=True)
class Point:
    """A row: its number in the result, generated images per second, and a quality of which less is better."""

    row: int
    name: str
    speed: float
    quality: float


def panels(result: AblationResult) -> dict[str, list[Point]]:
    """Title -> points, for the NLL and for the FID: a panel for each kind of likelihood, each data set and, of latents,
    each tokenizer, since these do not compare. None without rows that have both a quality and a speed."""
    data, latents, found = _differing(result, "data"), _differing(result, "tokenizer"), {}
    for number, (row, speed) in enumerate(zip(result.rows, generation_rates(result), strict=True)):
        if speed is None:
            continue
        for title, value in _qualities(row):
            title += data[row.model] + (latents[row.model] if title.endswith(_OF_LATENTS) else "")
            found.setdefault(title, []).append(Point(number, row.name, speed, value))
    return dict(sorted(found.items(), key=lambda panel: panel[0].startswith("FID")))


def front(points: Sequence[Point]) -> list[Point]:
    """The points than which none is both faster and better, from slow to fast."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.speed, p.quality)):
        if not kept or point.quality < kept[-1].quality:
            kept.append(point)
    return kept[::-1]


def pareto(result: AblationResult) -> str:
    """The section of the page (HTML); nothing without points."""
    found = panels(result)
    if not found:
        return ""
    figures = "".join(_figure(title, points) for title, points in found.items())
    return (
        f'<section id="pareto"><h2>Quality against speed</h2><p class="hint">{escape(_about(result))} Right is faster, '
        "down is better; the line joins the rows that no other row beats in both. Point at a mark for a name that had "
        f'no room.</p><div class="panels">{figures}</div></section>'
    )


def write_pareto(result: AblationResult, folder: Path) -> Path | None:
    """``pareto.png``, the panels of the page under one another. Returns its path; None without points."""
    from matplotlib.figure import Figure

    found = panels(result)
    if not found:
        return None
    height = _HEIGHT * len(found)
    figure = Figure(figsize=(_WIDTH / 72, height / 72))  # a unit of the drawing is a point of the picture
    for number, (title, points) in enumerate(found.items()):
        chart = _chart(title, points)
        left, top, right, bottom = chart.area
        base = _HEIGHT * (len(found) - number) - bottom
        panel = figure.add_axes((left / _WIDTH, base / height, (right - left) / _WIDTH, (bottom - top) / height))
        _draw(panel, chart, points)
    figure.savefig(folder / "pareto.png", dpi=150, bbox_inches="tight")
    return folder / "pareto.png"


def _differing(result: AblationResult, section: str) -> dict[str, str]:
    """Model -> the options of a section of its recipe in which the models differ, for a title."""
    options = {model.name: model.recipe.get(section, {}) for model in result.models}
    keys = sorted({key for each in options.values() for key in each})
    differ = [key for key in keys if len({str(each.get(key)) for each in options.values()}) > 1]
    return {name: "".join(f", {each.get(key)}" for key in differ) for name, each in options.items()}


def _qualities(row: Row) -> list[tuple[str, float]]:
    found = []
    if row.likelihood is not None:
        found.append(_nll(row.likelihood))
    if row.images is not None:
        found.append(("FID", row.images.fid))
    return found


def _nll(likelihood: Likelihood) -> tuple[str, float]:
    bits = likelihood.bits_per_dim
    if bits is None:
        return f"NLL ({kind_of(likelihood)}), {_OF_LATENTS}", likelihood.nats_per_image
    return f"NLL ({kind_of(likelihood)}), bits/dim", bits


def _about(result: AblationResult) -> str:
    if measured_alone(result):
        return "Speed: generation by each model along its own plan, measured one model at a time."
    return "Speed: images generated for the FID, by the time that took."


def _chart(title: str, points: Sequence[Point]) -> Chart:
    speeds, qualities = [p.speed for p in points], [p.quality for p in points]
    slow, fast, low, high = min(speeds), max(speeds), min(qualities), max(qualities)
    log, margin = fast > 10 * slow, 0.06 * ((high - low) or abs(high) or 1.0)
    room = 0.06 * ((fast - slow) or fast)
    x_range = (slow / 1.3, fast * 1.3) if log else (max(0.0, slow - room), fast + room)
    return Chart("generated images/s", title, x_range, (low - margin, high + margin), _WIDTH, _HEIGHT, log)


def _steps(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """The corners of the front: from each point, the next quality at its own speed."""
    best = front(points)
    x = [point.speed for point in best for _ in range(2)]
    y = [point.quality for point in best for _ in range(2)]
    return x[:-1], y[1:]


def _figure(title: str, points: Sequence[Point]) -> str:
    chart, best = _chart(title, points), {point.row for point in front(points)}
    marks = []
    for point, label in zip(points, _labels(chart, points), strict=True):
        x, y = chart.place(point.speed, point.quality)
        text = "" if label is None else _text(point.name, x, y, label)
        marks.append(
            f'<g class="point{" front" if point.row in best else ""}" data-rows="{point.row}">'
            f"<title>{escape(f'{point.name}: {point.quality:.4g} at {point.speed:.4g} images/s')}</title>"
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>{text}</g>'
        )
    line = Line(*_steps(points), "frontier", "the front")
    label = f"{title} against speed"
    drawn = chart.svg([line], label, above="".join(marks))
    return f'<div class="scroll figure" tabindex="0" role="region" aria-label="{escape(label)}">{drawn}</div>'


def _text(name: str, x: float, y: float, label: Label) -> str:
    place = f'x="{x + label.dx:.1f}" y="{y + label.dy:.1f}" text-anchor="{label.anchor}"'
    return f'<text class="name" {place}>{escape(name)}</text>'


def _draw(panel: Any, chart: Chart, points: Sequence[Point]) -> None:
    best = {point.row for point in front(points)}
    panel.plot(*_steps(points), color="tab:blue", linewidth=1, alpha=0.6)
    for point, label in zip(points, _labels(chart, points), strict=True):
        place, colour = (point.speed, point.quality), "tab:blue" if point.row in best else "0.45"
        panel.plot(*place, "o", markersize=5, color=colour)
        if label is not None:
            align = {"start": "left", "end": "right", "middle": "center"}[label.anchor]
            offset = (label.dx, -label.dy)  # a picture's y goes up
            panel.annotate(point.name, place, offset, textcoords="offset points", ha=align, fontsize=FONT, color=colour)
    if chart.log_x:
        panel.set_xscale("log")
        panel.set_xticks(log_ticks(*chart.x_range), [f"{tick:g}" for tick in log_ticks(*chart.x_range)], minor=False)
        panel.set_xticks([], minor=True)
    panel.set(xlim=chart.x_range, ylim=chart.y_range)
    panel.set_xlabel(chart.x_label, fontsize=FONT)
    panel.set_ylabel(chart.y_label, fontsize=FONT)
    panel.tick_params(labelsize=FONT - 1)
    panel.grid(alpha=0.25, linewidth=0.5)


def _labels(chart: Chart, points: Sequence[Point]) -> list[Label | None]:
    places = [chart.place(point.speed, point.quality) for point in points]
    first = [points.index(point) for point in front(points)]
    return labels(places, [point.name for point in points], first, chart.area)

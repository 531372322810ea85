"""The part of the page that shows each row: the maps of its plan, its NLL along the way, its samples.

L tokens · K AR steps
"""

from __future__ import annotations

import base64
import math
from html import escape
from itertools import accumulate
from pathlib import Path

from mar.experiments.result import AblationResult, Row
from mar.likelihood.score import Likelihood
from mar.metrics.base import PlanMap
from mar.reports.svg import Chart, Line, heat_map, rows_of

_MIME = {".png": "image/png", ".gif": "image/gif"}
_UNFOLDED = 12  # rows of which all cards are open


def hint(result: AblationResult) -> str:
    """How to read the cards (HTML)."""
    low, high = _position_range(result)
    scale = f'<span class="scale"></span> from {low:.1f} to {high:.1f} bits' if high > low else ""
    return (
        "Rank and step maps run from violet (first) to yellow (last); where all images share the order, a line joins "
        f"consecutive tokens that touch. NLL by position: {scale}. In the curves a step's NLL is divided by its "
        "tokens, and the other rows of the same partition are drawn in grey. Point at a map for its values."
    )


def cards(result: AblationResult, folder: Path) -> str:
    """One card an ordering, one strip a partition; with settings a card for each value of the first (HTML).

    Cards fold; in a result of many rows only the first is open, so that a browser lays out and decodes what is read.
    """
    by_title: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(result.rows):
        by_title.setdefault(next(iter(row.settings.values()), row.ordering), []).append((number, row))
    chart, positions = _chart(result), _position_range(result)
    parts = _ghosts(result, chart)
    for title, rows in by_title.items():
        strips = "".join(_strip(number, row, chart, positions, folder) for number, row in rows)
        state = " open" if len(result.rows) <= _UNFOLDED or title == next(iter(by_title)) else ""
        said = _summary([row for _, row in rows])
        parts.append(
            f'<details class="card"{state}><summary><h3>{escape(title)}</h3> <span>{said}</span></summary>'
            f"{strips}</details>"
        )
    return "".join(parts)


def _summary(rows: list[Row]) -> str:
    """What a folded card says: how many rows, and their lowest NLL and FID."""
    lowest = []
    if scored := [row.likelihood for row in rows if row.likelihood is not None]:
        lowest.append(_nll(min(scored, key=lambda likelihood: likelihood.nats_per_image)))
    if drawn := [row.images.fid for row in rows if row.images is not None]:
        lowest.append(f"FID {min(drawn):.2f}")
    if len(rows) == 1:
        return " · ".join(lowest)
    return f"{len(rows)} rows" + (f" · lowest {', '.join(lowest)}" if lowest else "")


def _what(row: Row) -> str:
    """What a strip is, beside its card's title."""
    rest = list(row.settings.values())[1:]
    return ", ".join(rest) or (row.plan if row.settings else row.partition)


def _strip(number: int, row: Row, chart: Chart, positions: tuple[float, float], folder: Path) -> str:
    figures = [_maps(row)] if row.map is not None else []
    if row.likelihood is not None and row.likelihood.nats_per_position and row.map is not None:
        figures.append(_position_map(row.likelihood, row.map, positions, row.plan))
    if row.likelihood is not None and row.likelihood.nats_per_step:
        curve = chart.svg([_curve(row.likelihood, "own", row.name)], f"NLL per step, {row.name}", _ghost_id(row))
        figures.append(_figure(curve, "NLL per token along the order", "curve-figure"))
    figures += [
        _figure(_image(folder / picture, f"{what}, {row.name}"), what, "picture")
        for picture, what in ((row.animation, "generation, blue: not yet known"), (row.samples, "samples"))
        if picture is not None
    ]
    said = [f"refused: {row.refused}"] if row.refused else row.errors
    problems = "".join(f'<p class="problem">{escape(text)}</p>' for text in said)
    return (
        f'<div class="plan" data-rows="{number}"><h4>{escape(_what(row))} <span>{_headline(row)}</span></h4>'
        f'{problems}<div class="strip">{"".join(figures)}</div></div>'
    )


def _image(path: Path, what: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:{_MIME[path.suffix]};base64,{data}" alt="{escape(what)}">'


def _headline(row: Row) -> str:
    parts = [] if row.map is None else [f"{max(row.map.step_L) + 1} steps"]
    if row.likelihood is not None:
        parts.append(_nll(row.likelihood))
    if row.images is not None:
        parts.append(f"FID {row.images.fid:.2f}")
    return " · ".join(parts)


def _nll(likelihood: Likelihood) -> str:
    bits = likelihood.bits_per_dim
    return f"NLL {likelihood.nats_per_image:.2f} nats" if bits is None else f"NLL {bits:.4f} bits/dim"


def _maps(row: Row) -> str:
    assert row.map is not None
    grid, last = row.map.grid, max(row.map.step_L)
    ranks, steps = rows_of(row.map.rank_L, grid), rows_of(row.map.step_L, grid)
    draw = ", one draw" if row.map.random else ""
    rank_map = heat_map(ranks, f"Rank map, {row.plan}", 0, len(row.map.rank_L) - 1, "rank {}", path=not row.map.random)
    step_map = heat_map(steps, f"Step map, {row.plan}", 0, last, "step {}")
    return _figure(rank_map, f"rank{draw}") + _figure(step_map, f"step, {last + 1} in all")


def _position_map(likelihood: Likelihood, plan: PlanMap, span: tuple[float, float], name: str) -> str:
    bits = [nats / math.log(2.0) for nats in likelihood.nats_per_position]
    drawn = heat_map(rows_of(bits, plan.grid), f"NLL by position, {name}", *span, what="{} bits")
    return _figure(drawn, "NLL by position")


def _figure(content: str, caption: str, style: str = "map-figure") -> str:
    return f'<figure class="{style}">{content}<figcaption>{escape(caption)}</figcaption></figure>'


def _curve(likelihood: Likelihood, style: str, name: str) -> Line:
    """Bits per token against tokens known before the step, flat along each step."""
    ends = list(accumulate(likelihood.tokens_per_step))
    pairs = zip(likelihood.nats_per_step, likelihood.tokens_per_step, strict=True)
    bits = [nats / tokens / math.log(2.0) for nats, tokens in pairs]
    x = [place for start, end in zip([0.0, *ends], ends, strict=False) for place in (start, end)]
    return Line(x, [value for value in bits for _ in range(2)], style, name)


def _chart(result: AblationResult) -> Chart:
    """One pair of axes for all plans."""
    curves = [_curve(likelihood, "", "") for _, likelihood in _along(result)]
    x = max((curve.x[-1] for curve in curves), default=1.0)
    drawn = [y for curve in curves for y in curve.y if math.isfinite(y)]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    return Chart("tokens known", "bits per token", (0, x), (min(0.0, low), high))


def _ghosts(result: AblationResult, chart: Chart) -> list[str]:
    """The curves of all rows of a partition, drawn once and shared by its charts."""
    by_partition: dict[str, list[Line]] = {}
    for row, likelihood in _along(result):
        by_partition.setdefault(_ghost_id(row), []).append(_curve(likelihood, "ghost", row.name))
    return [chart.group(lines, name) for name, lines in by_partition.items()]


def _along(result: AblationResult) -> list[tuple[Row, Likelihood]]:
    """The rows whose NLL is known step by step."""
    found = [(row, row.likelihood) for row in result.rows if row.likelihood is not None]
    return [(row, likelihood) for row, likelihood in found if likelihood.nats_per_step]


def _ghost_id(row: Row) -> str:
    return "ghost-" + "".join(c if c.isalnum() else "-" for c in row.partition)


def _position_range(result: AblationResult) -> tuple[float, float]:
    """Bits of the least and the most uncertain position under any plan."""
    scored = [row.likelihood for row in result.rows if row.likelihood is not None]
    nats = [v for likelihood in scored for v in likelihood.nats_per_position if math.isfinite(v)]
    return (min(nats) / math.log(2.0), max(nats) / math.log(2.0)) if nats else (0.0, 0.0)

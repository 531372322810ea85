"""One self-contained HTML page of a grid: no network, light and dark, readable on a narrow screen.

L tokens · K AR steps
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image, ImageSequence

from mar.core.files import write_atomic
from mar.core.table import Table
from mar.experiments.result import AblationResult, PlanMap, Row, measured_alone
from mar.experiments.statistics import settings_without_seed
from mar.reports import plots, verdict
from mar.reports.tables import grid_table, seeds_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HERE = Path(__file__).parent
_FILMS = 200_000  # bytes of all animations of a page
_UNFOLDED = 12  # rows of which all cards are open
_CELL = 10  # units of a map
_MIME = {".png": "image/png", ".gif": "image/gif"}
_BITS = math.log(2.0)  # nats


def write_page(result: AblationResult, pictures: Path, path: Path) -> Path:
    """Write the page to ``path`` and return it; ``pictures`` is the folder of the pictures named in ``result``."""
    write_atomic(path, page(result, pictures))
    return path


def page(result: AblationResult, pictures: Path) -> str:
    """Return the page; pictures that are missing are left out."""
    what = ("cell", "Cells") if result.axes else ("plan", "Orderings")
    rows, means = (
        _table(grid_table(result), f"Table of {what[0]}s", "sortable"),
        _table(seeds_table(result), "Table over seeds", "sortable"),
    )
    if means:
        rows = f"<details><summary>Each training by itself</summary>{rows}</details>"
    sections = {
        "seeds": ("Means over seeds", means),
        "table": (f"Every {what[0]}", rows),
        "differences": (f"NLL against {escape(result.reference)}", _differences(result)),
        "pareto": ("Quality against speed", _pareto(result)),
        "orderings": (what[1], _cards(result, pictures)),
        "training": ("Training", _chart(plots.learning_curves(result), "Training curves") or "<p>No curve was logged."),
        "reproduce": ("Reproduce", _reproduce(result)),
    }
    shown = {key: (head, text) for key, (head, text) in sections.items() if text}
    title = result.grid.get("title") or (result.name if result.axes else f"{result.name}: the order of generation")
    alarms = "".join(f"<li>{escape(alarm)}</li>" for alarm in verdict.alarms(result))
    return Template((_HERE / "page.html").read_text()).substitute(
        title=escape(title),
        head=escape(result.grid.get("question") or title),
        answer="".join(f'<p class="answer">{escape(sentence)}</p>' for sentence in verdict.answers(result)),
        alarms=f'<ul class="alarms" aria-label="Read with care">{alarms}</ul>' if alarms else "",
        style=(_HERE / "page.css").read_text(),
        script=(_HERE / "page.js").read_text(),
        lead=escape(_lead(result)),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{_breakable(v)}</dd></div>" for k, v in _facts(result).items()),
        links="".join(f'<a href="#{key}">{head}</a>' for key, (head, _) in shown.items()),
        sections="".join(f'<section id="{k}"><h2>{head}</h2>{text}</section>' for k, (head, text) in shown.items()),
    )


# The head.


def _lead(result: AblationResult) -> str:
    if result.axes:
        axes = " × ".join(_count(len({row.settings[axis] for row in result.rows}), axis) for axis in result.axes)
        return f"{axes}: models of {result.data}, each trained on its own, measured on the same images and noise."
    orderings, partitions = ({getattr(row, part) for row in result.rows} for part in ("ordering", "partition"))
    return (
        f"One model of {result.data}, trained once, generates and scores images under "
        f"{_count(len(orderings), 'ordering')} and {_count(len(partitions), 'partition')} of the tokens."
    )


def _facts(result: AblationResult) -> dict[str, str]:
    """The sizes and the times."""
    facts = {"cells" if result.axes else "plans": str(len(result.rows))}
    sizes = sorted(model.parameters for model in result.models if model.parameters)
    if sizes:
        facts["parameters"] = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    facts["training"] = _time(sum(model.training.seconds for model in result.models if model.training is not None))
    facts["training and evaluation"] = _time(result.seconds)
    return facts


# The sections.


def _table(table: Table[Any], label: str, css: str) -> str:
    if not table.rows:
        return ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{table.html(css)}</div>'
        f'<details class="notes"><summary>How to read this table</summary><ul>{notes}</ul></details>'
    )


def _chart(figure: Figure | None, label: str, hint: str = "") -> str:
    if figure is None:
        return ""
    said = f'<p class="hint">{hint}</p>' if hint else ""
    drawn = plots.svg(figure, label)
    return f'{said}<div class="scroll figure" tabindex="0" role="region" aria-label="{label}">{drawn}</div>'


def _differences(result: AblationResult) -> str:
    other = ", other settings alike" if result.axes else ""
    hint = (
        f"Mean difference to {escape(result.reference)}{other}, with its interval; left of the line is better. A dot "
        "is one token at a time, a ring sets of tokens. Point at a mark for its numbers."
    )
    return _chart(plots.differences(result), "Differences in NLL", hint)


def _pareto(result: AblationResult) -> str:
    speed = "of the images generated for the FID"
    if measured_alone(result):
        speed = "of generation by each model along its own plan, measured one model at a time"
    hint = (
        f"The speed is that {speed}. Right is faster, down is better; the line joins the rows that no other row beats "
        "in both. Point at a mark for its name."
    )
    return _chart(plots.pareto(plots.panels(result)), "Quality against speed", hint)


def _reproduce(result: AblationResult) -> str:
    told = {k: v for k, v in result.environment.items() if k not in ("packages", "command")}
    told |= result.environment["packages"]
    lines = "".join(f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in told.items())
    files = {f"Recipe{' of the first cell' if result.axes else ''}": result.models[0].recipe, "Grid": result.grid}
    folded = "".join(
        f"<details><summary>{name}</summary><pre><code>{escape(OmegaConf.to_yaml(content))}</code></pre></details>"
        for name, content in files.items()
    )
    command = escape(result.environment["command"])
    return (
        f'<pre class="command" tabindex="0"><code>{command}</code></pre><div class="pair">'
        f'<table class="plain"><caption>Environment</caption><tbody>{lines}</tbody></table><div>{folded}</div></div>'
    )


# The cards.


def _cards(result: AblationResult, pictures: Path) -> str:
    """A card for each value of the first setting (without settings, for each ordering), a strip for each row.

    Of many rows only the first card is open, so that a browser lays out and decodes the visible part.
    """
    by_title: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(result.rows):
        first = next((verdict.setting(*each) for each in settings_without_seed(row).items()), row.ordering)
        by_title.setdefault(first, []).append((number, row))
    span, cards = _position_range(result), []
    limit = _FILMS // max(1, sum(row.animation is not None for row in result.rows))
    for title, rows in by_title.items():
        strips = "".join(_strip(number, row, span, pictures, limit) for number, row in rows)
        state = " open" if len(result.rows) <= _UNFOLDED or not cards else ""
        along = {_rest(row): row.likelihood for _, row in rows if row.likelihood and row.likelihood.nats_per_step}
        if along:
            curves = plots.svg(plots.likelihoods(along, width=5.4), f"NLL per step, {title}")
            strips += _figure(curves, "NLL per token along the order", "curve-figure")
        cards.append(
            f'<details class="card"{state}><summary><h3>{escape(title)}</h3> <span>{_count(len(rows), "row")}</span>'
            f"</summary>{strips}</details>"
        )
    hint = (
        "Rank and step maps run from violet (first) to yellow (last); where all images share the order, a line joins "
        "consecutive tokens that touch. Point at a map for its values."
    )
    if span[1] > span[0]:
        hint += f' NLL by position: <span class="scale"></span> from {span[0]:.1f} to {span[1]:.1f} bits.'
    buttons = '<button type="button" class="fold" hidden>open or fold all</button>'
    if any(row.animation is not None for row in result.rows):
        buttons += ' <button type="button" class="pause" aria-pressed="false" hidden>pause the animations</button>'
    return f'<p class="hint">{hint}</p>{buttons}{"".join(cards)}'


def _strip(number: int, row: Row, span: tuple[float, float], pictures: Path, limit: int) -> str:
    figures = _maps(row, span)
    for picture, what in ((row.animation, "generation, blue: not yet known"), (row.samples, "samples")):
        if picture is not None and (pictures / picture).is_file():
            data = base64.b64encode(_thinned(pictures / picture, limit)).decode()
            source = f"data:{_MIME[Path(picture).suffix]};base64,{data}"
            image = f'<img src="{source}" alt="{escape(f"{what}, {row.name}")}">'
            figures.append(_figure(f"<picture>{_still(pictures / picture)}{image}</picture>", what, "picture"))
    parts = [] if row.map is None else [f"{max(row.map.step_L) + 1} steps"]
    if row.likelihood is not None:
        bits = row.likelihood.bits_per_dim
        parts.append(f"NLL {row.likelihood.nats_per_image:.2f} nats" if bits is None else f"NLL {bits:.4f} bits/dim")
    parts += [] if row.images is None else [f"FID {row.images.fid:.2f}"]
    said = [f"refused: {row.refused}"] if row.refused else row.errors
    problems = "".join(f'<p class="problem">{escape(text)}</p>' for text in said)
    return (
        f'<div class="plan" data-rows="{number}"><h4>{escape(_rest(row))} <span>{" · ".join(parts)}</span></h4>'
        f'{problems}<div class="strip">{"".join(figures)}</div></div>'
    )


def _thinned(path: Path, limit: int) -> bytes:
    """Return a picture's file; of an animation over ``limit`` bytes every n-th frame, shown n times as long."""
    content, out = path.read_bytes(), io.BytesIO()
    every = math.ceil(len(content) / limit)
    if path.suffix != ".gif" or every == 1:
        return content
    with Image.open(path) as film:
        frames = [(frame.copy(), frame.info["duration"]) for frame in ImageSequence.Iterator(film)]
    starts = [*range(0, len(frames) - 1, every), len(frames) - 1]
    times = [sum(time for _, time in frames[a:b]) for a, b in pairwise([*starts, len(frames)])]
    first, *others = (frames[k][0] for k in starts)
    first.save(out, "GIF", save_all=True, append_images=others, duration=times, loop=0)
    return out.getvalue()


def _still(path: Path) -> str:
    """Return the last frame of an animation, for readers who want no motion; nothing of a picture."""
    if path.suffix != ".gif":
        return ""
    out = io.BytesIO()
    with Image.open(path) as film:
        film.seek(getattr(film, "n_frames", 1) - 1)
        film.save(out, "PNG", save_all=False)
    data = base64.b64encode(out.getvalue()).decode()
    return f'<source class="still" media="(prefers-reduced-motion: reduce)" srcset="data:image/png;base64,{data}">'


def _rest(row: Row) -> str:
    """Return the name of a row beside its card's title."""
    title = next(iter(settings_without_seed(row)), "")
    others = [verdict.setting(*each) for each in row.settings.items() if each[0] != title]
    return ", ".join(others) or (row.plan if row.settings else row.partition)


def _maps(row: Row, span: tuple[float, float]) -> list[str]:
    plan, likelihood = row.map, row.likelihood
    if plan is None:
        return []
    last, one = max(plan.step_L), ", one draw" if plan.random else ""
    rank = _map(plan, plan.rank_L, f"Rank map, {row.plan}", (0, len(plan.rank_L) - 1), "rank {}", not plan.random)
    step = _map(plan, plan.step_L, f"Step map, {row.plan}", (0, last), "step {}")
    figures = [_figure(rank, f"rank{one}"), _figure(step, f"step, {last + 1} in all")]
    if likelihood is not None and likelihood.nats_per_position:
        bits = [nats / _BITS for nats in likelihood.nats_per_position]
        figures.append(_figure(_map(plan, bits, f"NLL by position, {row.plan}", span, "{} bits"), "NLL by position"))
    return figures


def _map(
    plan: PlanMap, values_L: Sequence[float], label: str, span: tuple[float, float], what: str, path: bool = False
) -> str:
    """A pixel for each cell of the grid; ``path`` joins consecutive ranks that touch. The script shows the values under
    the pointer: ``what`` of one, as in "rank {}"."""
    rows = grid_rows(values_L, plan.grid)
    width, height = _CELL * max(map(len, rows)), _CELL * len(rows)
    drawn = (
        f'<image width="{width}" height="{height}" preserveAspectRatio="none" href="{plots.heat_map(rows, *span)}"/>'
    )
    drawn += f'<path class="path" d="{_walk(rows)}"/>' if path else ""
    values = ";".join(" ".join(f"{value:.4g}" for value in row) for row in rows)
    return (
        f'<svg class="map" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'data-what="{escape(what)}" data-values="{values}">{drawn}</svg>'
    )


def grid_rows(values_L: Sequence[float], grid: tuple[int, ...]) -> list[list[float]]:
    """Return values as rows of a picture: channels are averaged, a 1-D grid is folded into rows of 32."""
    if len(grid) == 1:
        return [list(values_L[start : start + 32]) for start in range(0, len(values_L), 32)]
    return np.reshape(values_L, (*grid[:2], -1)).mean(-1).tolist()


def _walk(rows: Sequence[Sequence[float]]) -> str:
    """The path through cells of rising value, broken where the next one does not touch."""
    places = sorted((value, i, j) for i, row in enumerate(rows) for j, value in enumerate(row))
    parts, before = [], (math.inf, math.inf)
    for _, i, j in places:
        touching = max(abs(i - before[0]), abs(j - before[1])) <= 1
        parts.append(f"{'L' if touching else 'M'}{_CELL * j + _CELL // 2} {_CELL * i + _CELL // 2}")
        before = (i, j)
    return "".join(parts)


def _position_range(result: AblationResult) -> tuple[float, float]:
    """Bits of the least and the most uncertain position under any plan."""
    scored = [row.likelihood for row in result.rows if row.likelihood is not None]
    nats = [v for likelihood in scored for v in likelihood.nats_per_position if math.isfinite(v)]
    return (min(nats) / _BITS, max(nats) / _BITS) if nats else (0.0, 0.0)


# Small parts.


def _figure(content: str, caption: str, style: str = "map-figure") -> str:
    return f'<figure class="{style}">{content}<figcaption>{escape(caption)}</figcaption></figure>'


def _breakable(text: str) -> str:
    """Escaped, with a place to break a line after the parts of a plan."""
    return escape(text).replace("/", "/<wbr>")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f}\N{NO-BREAK SPACE}s" if seconds < 120 else f"{seconds / 60:.1f}\N{NO-BREAK SPACE}min"

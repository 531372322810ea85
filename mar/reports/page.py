"""One self-contained HTML page of a grid: no network, light and dark, readable on a narrow screen.

L tokens · K AR steps
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from omegaconf import OmegaConf

from mar.core.files import write_atomic
from mar.core.table import Table, with_interval
from mar.experiments.result import AblationResult, PlanMap, Row, measured_alone
from mar.likelihood.summary import Likelihood
from mar.metrics.statistics import kind_of
from mar.reports import plots
from mar.reports.tables import grid_table, seeds_table

_HERE = Path(__file__).parent
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
    table = grid_table(result)
    sections = {
        "seeds": ("Over seeds", _seeds(result)),
        "differences": (f"NLL against {escape(result.reference)}", _differences(result)),
        "pareto": ("Quality against speed", _pareto(result)),
    }
    links = {"differences": "Differences", "pareto": "Speed"}
    return Template((_HERE / "page.html").read_text()).substitute(
        title=escape(result.name if result.axes else f"{result.name}: the order of generation"),
        what="cell" if result.axes else "plan",
        cards="Cells" if result.axes else "Orderings",
        style=(_HERE / "page.css").read_text(),
        script=(_HERE / "page.js").read_text(),
        lead=_lead(result),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{_breakable(v)}</dd></div>" for k, v in _facts(result).items()),
        filters=_filters(table),
        table=table.html("sortable"),
        notes="".join(f"<li>{escape(note)}</li>" for note in table.notes),
        links="".join(f'<a href="#{key}">{name}</a>' for key, name in links.items() if sections[key][1]),
        sections="".join(
            f'<section id="{k}"><h2>{h}</h2>{text}</section>' for k, (h, text) in sections.items() if text
        ),
        orderings_hint=_hint(result),
        orderings=_cards(result, pictures),
        training=_training(result),
        command=escape(result.environment["command"]),
        environment=_environment(result.environment),
        recipe_title="Recipe of the first cell" if result.axes else "Recipe",
        recipe=escape(_yaml(result.models[0].recipe)),
        grid=escape(_yaml(result.grid)),
    )


# The head.


def _lead(result: AblationResult) -> str:
    if result.axes:
        axes = " × ".join(_count(len({row.settings[axis] for row in result.rows}), axis) for axis in result.axes)
        return (
            f"{escape(axes)}: models of {escape(result.data)}, each trained on its own and measured on the same images "
            "with the same noise."
        )
    orderings = _count(len({row.ordering for row in result.rows}), "ordering")
    partitions = _count(len({row.partition for row in result.rows}), "partition")
    return (
        f"One model of {escape(result.data)}, trained once, generates and scores images under {orderings} and "
        f"{partitions} of the tokens: the same weights, the same images, the same noise."
    )


def _facts(result: AblationResult) -> dict[str, str]:
    facts = {"cells" if result.axes else "plans": str(len(result.rows))}
    scored = [(row.likelihood, row.name) for row in result.rows if row.likelihood is not None]
    drawn = [(row.images.fid, row.name) for row in result.rows if row.images is not None]
    one_data = "," not in result.data_fingerprint
    if one_data and len({kind_of(likelihood) for likelihood, _ in scored}) == 1:
        best, name = min(scored, key=lambda pair: pair[0].nats_per_image)
        facts["lowest NLL"] = f"{_nll(best)} ({name})"
    if one_data and drawn:
        facts["lowest FID"] = "{:.2f} ({})".format(*min(drawn))
    sizes = sorted(model.parameters for model in result.models if model.parameters)
    if sizes:
        facts["parameters"] = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    facts["training"] = _time(sum(model.training.seconds for model in result.models if model.training is not None))
    facts["training and evaluation"] = _time(result.seconds)
    return facts


# The tables.


def _filters(table: Table[Row]) -> str:
    """A search field, and a list for each column of words with several values. The page's script shows the form."""
    lists = []
    for number, column in enumerate(table.columns):
        values = dict.fromkeys(str(value) for row in table.rows if (value := column.value(row)) is not None)
        if column.words and column.title != "problem" and len(values) > 1:
            options = "".join(f"<option>{escape(value)}</option>" for value in values)
            lists.append(
                f'<label>{escape(column.title)} <select name="{escape(column.title)}" data-column="{number}">'
                f'<option value="">all</option>{options}</select></label>'
            )
    total = len(table.rows)
    return (
        '<form class="filters" role="search" aria-label="Filter the rows" hidden>'
        '<label>any cell <input type="search" name="find" autocomplete="off" spellcheck="false"></label>'
        f'{"".join(lists)}<button type="reset">all rows</button>'
        f'<output aria-live="polite">{total} of {total} rows</output></form>'
    )


def _seeds(result: AblationResult) -> str:
    table = seeds_table(result)
    if not table.rows:
        return ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table over seeds">{table.html("seeds")}</div>'
        f'<ul class="notes">{notes}</ul>'
    )


# Differences and speed.


def _differences(result: AblationResult) -> str:
    """A line for each difference to the reference, with its interval on one scale."""
    found = [(number, row, row.difference) for number, row in enumerate(result.rows) if row.difference is not None]
    if not found:
        return ""
    first = found[0][2]
    unit, digits = ("nats", 2) if first.bits_per_dim is None else ("bits/dim", 4)
    values = [
        (n, row.name, d.nats_per_image, d.interval_nats)
        if d.bits_per_dim is None or d.interval_bits_per_dim is None
        else (n, row.name, d.bits_per_dim, d.interval_bits_per_dim)
        for n, row, d in found
    ]
    low, high = min(0.0, *(v[3][0] for v in values)), max(0.0, *(v[3][1] for v in values))
    span = 1.06 * ((high - low) or 1.0)
    low -= 0.03 * ((high - low) or 1.0)
    lines = []
    for number, name, mean, interval in values:
        zero, dot, start, end = (100 * (x - low) / span for x in (0.0, mean, *interval))
        lines.append(
            f'<div class="interval" data-rows="{number}"><span class="name">{escape(name)}</span><div class="track">'
            f'<i class="zero" style="left:{zero:.2f}%"></i>'
            f'<i class="range" style="left:{start:.2f}%;width:{end - start:.2f}%"></i>'
            f'<i class="dot" style="left:{dot:.2f}%"></i></div>'
            f'<span class="number">{with_interval(mean, interval, digits)}</span></div>'
        )
    other = ", other settings alike" if result.axes else ""
    return (
        f'<p class="hint">Mean paired difference, {unit}, with its {100 * first.confidence:g} % interval over images; '
        f"left of the line is better than {escape(result.reference)}{other}.</p>"
        f'<div class="intervals">{"".join(lines)}</div>'
    )


def _pareto(result: AblationResult) -> str:
    figures = []
    for title, points in plots.panels(result).items():
        hover = {f"point{p.row}": (f"{p.name}: {p.quality:.4g} at {p.speed:.4g} images/s", p.row) for p in points}
        figure = plots.pareto({title: points})
        assert figure is not None
        figures.append(_scrolled(plots.svg(figure, f"{title} against speed", hover), f"{title} against speed"))
    if not figures:
        return ""
    about = "generation by each model along its own plan, measured one model at a time"
    about = about if measured_alone(result) else "images generated for the FID, by the time that took"
    return (
        f'<p class="hint">Speed: {about}. Right is faster, down is better; the line joins the rows that no other row '
        f'beats in both. Point at a mark for its name.</p><div class="panels">{"".join(figures)}</div>'
    )


# The cards.


def _hint(result: AblationResult) -> str:
    low, high = _position_range(result)
    scale = f' NLL by position: <span class="scale"></span> from {low:.1f} to {high:.1f} bits.' if high > low else ""
    return (
        "Rank and step maps run from violet (first) to yellow (last); where all images share the order, a line joins "
        f"consecutive tokens that touch.{scale} In the curves a step's NLL is divided by its "
        "tokens. Point at a map for its values."
    )


def _cards(result: AblationResult, pictures: Path) -> str:
    """A card for each value of the first setting (without settings, for each ordering), a strip for each row.

    Of many rows only the first card is open, so that a browser lays out and decodes the visible part.
    """
    by_title: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(result.rows):
        by_title.setdefault(next(iter(row.settings.values()), row.ordering), []).append((number, row))
    span, parts = _position_range(result), []
    for title, rows in by_title.items():
        strips = "".join(_strip(number, row, span, pictures) for number, row in rows)
        state = " open" if len(result.rows) <= _UNFOLDED or not parts else ""
        along = {_rest(row): row.likelihood for _, row in rows if row.likelihood and row.likelihood.nats_per_step}
        curves = plots.svg(plots.along_the_order(along), f"NLL per step, {title}") if along else ""
        curves = _figure(curves, "NLL per token along the order", "curve-figure") if along else ""
        parts.append(
            f'<details class="card"{state}><summary><h3>{escape(title)}</h3> '
            f"<span>{_summary([row for _, row in rows])}</span></summary>{strips}{curves}</details>"
        )
    return "".join(parts)


def _summary(rows: list[Row]) -> str:
    """A folded card: the number of rows, and their lowest NLL and FID."""
    lowest = []
    if scored := [row.likelihood for row in rows if row.likelihood is not None]:
        lowest.append(f"NLL {_nll(min(scored, key=lambda likelihood: likelihood.nats_per_image))}")
    if drawn := [row.images.fid for row in rows if row.images is not None]:
        lowest.append(f"FID {min(drawn):.2f}")
    if len(rows) == 1:
        return " · ".join(lowest)
    return f"{len(rows)} rows" + (f" · lowest {', '.join(lowest)}" if lowest else "")


def _strip(number: int, row: Row, span: tuple[float, float], pictures: Path) -> str:
    figures = _maps(row, span)
    for picture, what in ((row.animation, "generation, blue: not yet known"), (row.samples, "samples")):
        if picture is not None and (pictures / picture).is_file():
            data = base64.b64encode((pictures / picture).read_bytes()).decode()
            source = f"data:{_MIME[Path(picture).suffix]};base64,{data}"
            figures.append(_figure(f'<img src="{source}" alt="{escape(f"{what}, {row.name}")}">', what, "picture"))
    parts = [] if row.map is None else [f"{max(row.map.step_L) + 1} steps"]
    parts += [] if row.likelihood is None else [f"NLL {_nll(row.likelihood)}"]
    parts += [] if row.images is None else [f"FID {row.images.fid:.2f}"]
    said = [f"refused: {row.refused}"] if row.refused else row.errors
    problems = "".join(f'<p class="problem">{escape(text)}</p>' for text in said)
    return (
        f'<div class="plan" data-rows="{number}"><h4>{escape(_rest(row))} <span>{" · ".join(parts)}</span></h4>'
        f'{problems}<div class="strip">{"".join(figures)}</div></div>'
    )


def _rest(row: Row) -> str:
    """The name of a row beside its card's title."""
    return ", ".join(list(row.settings.values())[1:]) or (row.plan if row.settings else row.partition)


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
    depth = math.prod(grid[2:])
    pixels = [math.fsum(values_L[k : k + depth]) / depth for k in range(0, len(values_L), depth)]
    return [pixels[start : start + grid[1]] for start in range(0, len(pixels), grid[1])]


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


# The training, and how to reproduce it.


def _training(result: AblationResult) -> str:
    trained = [model for model in result.models if model.training is not None]
    if not result.axes and trained and trained[0].training is not None and trained[0].training.loss_nats:
        return _scrolled(plots.svg(plots.training_curve(trained[0].training), "Training curve"), "Training curve")
    found = plots.groups(result) if result.axes else {}
    if not found:
        return "<p>No curve was logged.</p>"
    limits, figures = plots.value_range(trained), []
    for name, models in found.items():
        drawn, names = plots.svg(plots.learning_curve(models, limits), f"Validation curves, {name}"), set()
        names = {model.name for model in models}
        numbers = " ".join(str(number) for number, row in enumerate(result.rows) if row.model in names)
        figures.append(f'<figure data-rows="{numbers}">{drawn}<figcaption><b>{escape(name)}</b></figcaption></figure>')
    return f'<div class="curves">{"".join(figures)}</div>'


def _environment(environment: dict[str, Any]) -> str:
    flat = {k: v for k, v in environment.items() if k not in ("packages", "command")} | environment["packages"]
    return "".join(f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in flat.items())


def _yaml(content: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(content))


# Small parts.


def _figure(content: str, caption: str, style: str = "map-figure") -> str:
    return f'<figure class="{style}">{content}<figcaption>{escape(caption)}</figcaption></figure>'


def _scrolled(drawn: str, label: str) -> str:
    return f'<div class="scroll figure" tabindex="0" role="region" aria-label="{escape(label)}">{drawn}</div>'


def _nll(likelihood: Likelihood) -> str:
    bits = likelihood.bits_per_dim
    return f"{likelihood.nats_per_image:.2f} nats" if bits is None else f"{bits:.4f} bits/dim"


def _breakable(text: str) -> str:
    """Escaped, with a place to break a line after the parts of a plan."""
    return escape(text).replace("/", "/<wbr>")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f}\N{NO-BREAK SPACE}s" if seconds < 120 else f"{seconds / 60:.1f}\N{NO-BREAK SPACE}min"

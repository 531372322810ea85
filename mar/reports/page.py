"""One self-contained HTML page of a grid: no network, light and dark, readable on a narrow screen.

L tokens · K AR steps
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image, ImageSequence

from mar.core.files import write_atomic
from mar.core.table import MISSING, Column, Table
from mar.experiments.grid import phrase, setting
from mar.experiments.result import AblationResult, PlanMap, Row, measured_alone
from mar.experiments.shipped import about
from mar.experiments.statistics import FIGURES, SeedRow, left_out, numbered, over_seeds, values_of
from mar.metrics.statistics import spread
from mar.reports import plots, tables, verdict
from mar.reports.columns import has_bits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HERE = Path(__file__).parent
_FILMS = 400_000  # bytes of all pictures of a page
_WIDEST = 16_000  # pixels of a film strip: a limit of WebP
_SHOWN = 6  # generations at the head of the page
_UNFOLDED = 12  # rows of which all cards are open
_CELL = 10  # units of a map
_BITS = math.log(2.0)  # nats
_WIDTHS = (8.6, 4.3)  # of a chart for wide and narrow screens, inches
_LEVEL = 0.05  # of p-values
_MAIN = ("AR steps", "FID", "linear probe")  # columns of numbers that no box folds, beside the NLL's


def write_page(result: AblationResult, pictures: Path, path: Path) -> Path:
    """Write the page to ``path`` and return it; ``pictures`` is the folder of the pictures named in ``result``."""
    write_atomic(path, page(result, pictures))
    return path


def headline(result: AblationResult) -> tuple[str, str]:
    """Return the title and the question of a result; without a question, those of the shipped grid of its command."""
    shipped = result.name in result.environment["command"].split()
    found = about(result.name, result.data) if shipped and not result.grid.get("question") else result.grid
    title = found.get("title") or result.name
    return title, found.get("question") or title


def page(result: AblationResult, pictures: Path) -> str:
    """Return the page; pictures that are missing are left out."""
    title, question = headline(result)
    groups = [Group(numbers, rows) for numbers, rows in numbered(result)]
    limit = _FILMS // max(1, 2 * sum(group.row.animation is not None for group in groups))
    films = {group.numbers: _film(group.row, pictures, limit) for group in groups}
    compared = f"NLL against {escape(verdict.reference(result))}"
    lines = [("steps-curve", "NLL in fewer steps"), ("orders-curve", "NLL of mixtures of orders")]
    consistent = plots.PICTURES["consistency.png"](result)
    bars = [plots.differences(result, width) for width in _WIDTHS]
    sections = {
        "differences": (compared, _chart(bars, compared, _DIFFERENCES)),
        "table": (f"Every {'cell' if result.axes else 'plan'}", _tables(result, groups)),
        **{name: (head, _chart([plots.PICTURES[f"{name}.png"](result)], head)) for name, head in lines},
        "consistency": ("Order consistency", _chart([consistent], "Order consistency", _CONSISTENCY)),
        "pareto": ("Quality against speed", _pareto(result)),
        "cards": ("Cells" if result.axes else "Orderings", _cards(result, groups, films, pictures, limit)),
        "training": ("Training", _chart([plots.learning_curves(result)], "Training curves")),
        "reproduce": ("Reproduce", _reproduce(result)),
    }
    shown = {key: (head, text) for key, (head, text) in sections.items() if text}
    alarms = "".join(f"<li>{escape(alarm)}</li>" for alarm in verdict.alarms(result))
    return Template((_HERE / "page.html").read_text()).substitute(
        title=escape(title),
        kicker=escape(title if question != title else "mar-orderings"),
        question=escape(question),
        answer="".join(f"<p>{_strong(sentence)}</p>" for sentence in verdict.answers(result)),
        alarms=f'<section class="alarms" aria-label="Read with care"><ul>{alarms}</ul></section>' if alarms else "",
        style=(_HERE / "page.css").read_text(),
        script=(_HERE / "page.js").read_text(),
        about=escape(_about(result)),
        files=_files(result),
        films=_strip_of_films(result, groups, films),
        links="".join(f'<a href="#{key}">{head}</a>' for key, (head, _) in shown.items()),
        sections="".join(f'<section id="{k}"><h2>{head}</h2>{text}</section>' for k, (head, text) in shown.items()),
    )


@dataclass(frozen=True)
class Group:
    """The trainings of one setting: rows that differ in their seed alone."""

    numbers: str  # of the rows in the result, "0 7 14"
    rows: list[Row]

    @cached_property
    def row(self) -> Row:
        """The first of them: its pictures and maps stand for all."""
        return self.rows[0]

    @property
    def first(self) -> str:
        return self.numbers.split()[0]

    def mean(self, figure: str) -> float | None:
        values = values_of(self.rows, FIGURES[figure])
        return float(np.mean(values)) if values else None

    @cached_property
    def scores(self) -> str:
        """The means, "1.801 bits/dim · FID 1.79"."""
        nll, fid, found = self.mean("nll"), self.mean("fid"), []
        if nll is not None:
            found.append(f"{nll:.2f} nats" if self.row.likelihood.bits_per_dim is None else f"{nll:.3f} bits/dim")
        return " · ".join([*found, *([] if fid is None else [f"FID {fid:.2f}"])])


# The head.


def _about(result: AblationResult) -> str:
    """The size of the experiment in one line."""
    sizes = sorted(model.parameters for model in result.models if model.parameters)
    trained = [model.training for model in result.models if model.training is not None]
    seeds = len({row.settings["seed"] for row in result.rows if "seed" in row.settings}) or 1
    images = sorted({row.likelihood.n_images for row in result.rows if row.likelihood is not None})
    found = [_count(len(trained), "model") + f" of {result.data}"]
    if sizes:
        found.append(" to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1]))) + " parameters")
    found.append(f"trained in {_time(sum(training.seconds for training in trained))} on {_machine(result)}")
    if len(images) == 1:
        found.append(f"{images[0]:,} test examples, the same for every row")
    return " · ".join([*found, _count(seeds, "training seed")])


def _machine(result: AblationResult) -> str:
    """The device, as of "cpu, 2 cores"."""
    device = str(result.environment.get("device", "cpu"))
    return device.replace("cpu, ", "") + " of a CPU" if device.startswith("cpu, ") else device


def _files(result: AblationResult) -> str:
    """Links to the table, inside the page: CSV and JSON at full precision, LaTeX as printed."""
    raw = tables.data_table(result)
    forms = {"CSV": (raw.csv(), "csv"), "JSON": (raw.json(), "json"), "LaTeX": (tables.latex(result), "tex")}
    return " · ".join(
        f'<a download="{escape(result.name)}.{kind}" href="{_uri(text.encode(), "text/plain")}">{name}</a>'
        for name, (text, kind) in forms.items()
    )


def _strong(sentence: str) -> str:
    """Emphasise the subject of a sentence, "Lowest NLL: subsample …"."""
    subject, mark, rest = escape(sentence).partition(": ")
    return f"<strong>{subject}</strong>{mark}{rest}"


def _strip_of_films(result: AblationResult, groups: Sequence[Group], films: dict[str, str]) -> str:
    """At most six generations from the best to the worst, one token at a time where there is one; they pause."""
    made = [group for group in groups if films[group.numbers]]
    made = [group for group in made if group.row.partition == "singles"] or made
    made.sort(key=lambda group: group.mean("nll") or group.mean("fid") or 0.0)
    chosen = dict.fromkeys(round(k) for k in np.linspace(0, len(made) - 1, min(_SHOWN, len(made))) if made)
    bases = [k for k, group in enumerate(made) if group.row.name in _bases(result)]
    if bases and not chosen.keys() & set(bases):  # the reference in the place of the nearest between the ends
        del chosen[min([*chosen][1:-1], key=lambda k: abs(k - bases[0]))]
        chosen[bases[0]] = None
    shown = "".join(
        f'<figure data-rows="{group.numbers}">{films[group.numbers]}<figcaption><a href="#card-{group.first}">'
        f"{escape(verdict.named(group.row))}</a><br>{group.scores}</figcaption></figure>"
        for group in (made[k] for k in sorted(chosen))
    )
    pause = '<label class="pause"><input type="checkbox" id="pause"> pause the animations</label>'
    return f'<section class="films" aria-label="Generations">{shown}</section>{pause}' if shown else ""


# The tables.


def _tables(result: AblationResult, groups: Sequence[Group]) -> str:
    """The means over seeds, or the rows; warnings stand in the head of the page, and notes are folded."""
    rows, means = tables.grid_table(result), tables.seeds_table(result)
    notes = [note for note in (*rows.notes, *means.notes) if not note.startswith(verdict.WARNING)]
    folded = "".join(f"<li>{escape(note)}</li>" for note in notes)
    drawn = _table(result, means if means.rows else rows, groups)
    if means.rows:
        raw = _scroll(rows.html("sortable"), "Trainings")
        drawn += f"<details><summary>Each training by itself</summary>{raw}</details>"
    return f'{drawn}<details class="notes"><summary>How to read this</summary><ul>{folded}</ul></details>'


def _table(result: AblationResult, table: Table[Any], groups: Sequence[Group]) -> str:
    """The table of the page: step maps, chips and the price of sets; details fold behind a box."""
    group_of = {id(row): group for row, group in zip(table.rows, groups, strict=True)}
    reasons = {id(row): reason for row, reason in zip(table.rows, left_out(result), strict=True)}
    prices, digits, bases = verdict.prices(result), 3 if has_bits(result) else 2, _bases(result)
    based = {id(row) for row in table.rows if group_of[id(row)].row.name in bases}
    shown: list[Column[Any]] = []
    compared = any(column.title.startswith("Δ") for column in table.columns)
    table = table.without("not compared") if compared else table  # the chips say it
    for column in table.columns:
        if not shown:
            column = replace(column, markup=lambda row, of=column: _thumbnail(of.show(row), group_of.get(id(row))))
        elif column.title.startswith("Δ"):
            column = _chips(column, verdict.reference(result), digits, based, reasons)
        elif column.title == "NLL":
            column = replace(column, markup=lambda row, of=column: _with_error(of.show(row)))
        elif column.title in ("plan", "seeds", "validation curve"):
            column = replace(column, drop=1)
        elif column.title == "images/s" and any(each.title == "generation, images/s" for each in table.columns):
            column = replace(column, title="images/s for the FID", drop=2)  # another clock than generation's
        elif not (column.words or column.title in _MAIN or column.title.startswith("published")):
            column = replace(column, drop=2)
        shown.append(column)
        if column.title == "NLL" and prices:
            price = lambda row: prices.get(verdict.named(group_of[id(row)].row)) if id(row) in group_of else None  # noqa: E731
            shown.append(Column("price of sets", price, digits=digits, unit=column.unit, sign=True, drop=1))
    feet = table.baselines
    if any(column.title == "NLL" for column in table.columns) and isinstance(table.rows[0], SeedRow):
        feet = [_baseline(row, table.columns[0].title) for row in result.baselines if row.likelihood is not None]
    table = replace(table, columns=shown, baselines=feet)
    legend = _legend(table, compared, any(reasons.values()), bool(prices))
    more = '<label class="folded"><input type="checkbox"> more columns</label>'
    more = more if any(column.drop for column in shown) else ""
    return legend + more + _scroll(table.html("sortable", [group.numbers for group in groups], "row-"), "Table")


def _legend(table: Table[Any], compared: bool, left_out: bool, priced: bool) -> str:
    """What the marks of a table mean, in a line beside it: those that it has."""
    seeds, bold = isinstance(table.rows[0], SeedRow), any(column.best(table.rows) for column in table.columns)
    chip = (
        "Chips: NLL minus that of the reference, below 0 is better; <em>better</em> or <em>worse</em>: significantly "
        f"so (p \N{LESS-THAN OR EQUAL TO} {_LEVEL}, Holm-corrected); <em>n.s.</em>: not significant."
    )
    why = "A reason (<em>still falling</em>: trained too short; <em>worse than</em> a baseline): shown, not compared."
    best, price = "<b>Bold</b>: best of the rows that compare.", "Price of sets: NLL minus that of one token at a time."
    sd = "\N{PLUS-MINUS SIGN}: standard deviation over seeds."
    marks = {chip: compared, why: left_out, best: bold, price: priced, sd: seeds}
    return f'<p class="hint">{" ".join(text for text, used in marks.items() if used)}</p>'


def _baseline(row: Row, axis: str) -> SeedRow:
    return SeedRow({axis: row.plan}, row.plan, {"nll": spread(values_of([row], FIGURES["nll"]))}, None)


def _bases(result: AblationResult) -> set[str]:
    """Return the names of the rows that others are compared with."""
    return {row.difference.reference for row in result.rows if row.difference is not None}


def _with_error(text: str) -> str:
    """A figure, and its error where there is room."""
    mean, mark, error = text.partition(" ±")
    return f'{mean}<span class="less error">{mark}{error}</span>'


def _thumbnail(text: str, group: Group | None) -> str:
    """The step map of a row before its name; both lead to its card."""
    if group is None or group.row.map is None:
        return f"{escape(text)}"
    image = plots.heat_map(grid_rows(group.row.map.step_L, group.row.map.grid), 0, max(group.row.map.step_L))
    return f'<a href="#card-{group.first}"><img class="thumb" src="{image}" alt="">{escape(text)}</a>'


def _chips(
    column: Column[Any], name: str, digits: int, bases: set[int], reasons: dict[int, str]
) -> Column[Any]:  # fmt: skip
    """The differences as chips: better or worse if the corrected p is at most .05. ``bases``: ids of reference rows;
    ``reasons``: why a row, by its id, has no difference."""

    def chip(row: Any) -> str:
        mean = column.value(row)
        if not isinstance(mean, float):
            reason = escape(reasons.get(id(row), ""))
            base = '<span class="chip">reference</span> ' * (id(row) in bases)
            return base + (f'<span class="reason">{reason}</span>' if reason else "" if base else MISSING)
        p = row.p_holm if isinstance(row, SeedRow) else row.difference.p_holm
        word = "n.s." if p is None or p > _LEVEL else "better" if mean < 0 else "worse"
        number = f"{mean:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
        rest = escape(column.show(row)).partition(" ")[2]
        return f'<span class="chip {word}">{number} {word}</span><span class="more"> {rest}</span>'

    value = lambda row: 0.0 if id(row) in bases else column.value(row)  # noqa: E731 - the reference sorts as 0
    return replace(column, title=f"against {name}", value=value, text=column.show, markup=chip)


def _scroll(content: str, label: str, css: str = "", width: float = 0.0) -> str:
    """A box that scrolls and takes focus; ``width`` of a chart in inches: its letters are of one size on a page."""
    style = f' style="max-width:{6.2 * width:.0f}rem"' if width else ""
    return f'<div class="scroll {css}" tabindex="0" role="region" aria-label="{label}"{style}>{content}</div>'


# The charts.

_DIFFERENCES = (
    "Left is better. A bar is the 95 % interval of the paired difference to the reference, the dashed line: over test "
    "images, or with several training seeds over these. Point at a mark for its numbers."
)

_CONSISTENCY = (
    "All are 0 for one joint distribution. The chain rule: how much the log-probability of two tokens changes if the "
    "other comes first; the spread: the standard deviation of log p over random orders of one image. Bands and bars "
    "are ± one standard error; of several training seeds the first is drawn."
)


def _chart(drawn: Sequence[Figure | None], label: str, hint: str = "") -> str:
    """A chart, drawn once or for each of ``_WIDTHS``; empty where there is nothing to draw."""
    names = ("wide", "narrow") if len(drawn) > 1 else ("",)
    charts = "".join(
        _scroll(plots.svg(figure, label), label, f"figure {name}", figure.get_figwidth())
        for name, figure in zip(names, drawn, strict=True)
        if figure is not None
    )
    if not charts:
        return ""
    return f'{f"""<p class="hint">{hint}</p>""" if hint else ""}{charts}<output class="said"></output>'


def _pareto(result: AblationResult) -> str:
    speed = "of the images generated for the FID"
    if measured_alone(result):
        speed = "of generation by each model along its own plan, measured one model at a time"
    hint = (
        f"The speed is that {speed}. Right is faster, down is better; the line joins the rows that no other row beats "
        "in both, bars are ± a standard deviation over seeds. Point at a mark for its name."
    )
    found = plots.against_speed(result)
    return _chart([plots.pareto(found, width) for width in _WIDTHS], "Quality against speed", hint)


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


def _cards(
    result: AblationResult, groups: Sequence[Group], films: dict[str, str], pictures: Path, limit: int
) -> str:  # fmt: skip
    """A card for each value of the first setting (without settings, for each ordering), a strip for each group.

    Of many rows only the first card is open, so that a browser lays out and decodes the visible part.
    """
    by_title: dict[str, list[Group]] = {}
    for group in groups:
        first = next((setting(*each) for each in group.row.seedless.items()), group.row.ordering)
        by_title.setdefault(first, []).append(group)
    span, cards = _position_range(result), []
    for title, of in by_title.items():
        strips = "".join(_strip(group, span, films[group.numbers], pictures, limit) for group in of)
        state = " open" if len(groups) <= _UNFOLDED or not cards else ""
        scored = {_rest(group.row): group.row.likelihood for group in of}
        along = {name: found for name, found in scored.items() if found is not None and found.nats_per_step}
        if along:
            curves = plots.svg(plots.likelihoods(along, width=5.4), f"NLL per step, {title}")
            strips += _figure(curves, "NLL per token along the order", "curve-figure")
        cards.append(
            f'<details class="card"{state}><summary><h3>{escape(title)}</h3> <span>{_count(len(of), "row")}</span>'
            f"</summary>{strips}</details>"
        )
    hint = (
        "Violet is generated first, yellow last. If all images share one order, the white line traces it. Point at a "
        "map for its values, or choose it and press the arrow keys."
    )
    if span[1] > span[0]:
        hint += f' NLL by position: <span class="scale"></span> from {span[0]:.1f} to {span[1]:.1f} bits.'
    if over_seeds(result):
        hint += " Scores are means over seeds; maps and pictures are of the first seed."
    button = '<button type="button" class="fold" hidden>open or fold all</button>'
    return f'<p class="hint">{hint}</p>{button}{"".join(cards)}'


def _strip(group: Group, span: tuple[float, float], film: str, pictures: Path, limit: int) -> str:
    row, figures = group.row, _maps(group.row, span)
    if film:
        figures.append(_figure(film, "generation, blue: not yet known", "picture"))
    if row.samples is not None and (pictures / row.samples).is_file():
        with Image.open(pictures / row.samples) as image:
            source = webp([image.convert("RGB")], limit)[0]
        figures.append(_figure(f'<img src="{source}" alt="samples, {escape(row.name)}">', "samples", "picture"))
    steps = [] if row.map is None else [_count(max(row.map.step_L) + 1, "step")]
    said = [f"refused: {row.refused}"] if row.refused else row.errors
    problems = "".join(f'<p class="problem">{escape(text)}</p>' for text in said)
    scores = " · ".join([*steps, *filter(None, [group.scores])])
    return (
        f'<div class="plan" id="card-{group.first}" data-rows="{group.numbers}"><h4><a href="#row-{group.first}">'
        f"{escape(_rest(row))}</a> <span>{scores}</span></h4>{problems}"
        f'<div class="strip">{"".join(figures)}</div></div>'
    )


def _film(row: Row, pictures: Path, limit: int) -> str:
    """An animation as one strip of frames, which the style moves: it pauses and stands still without a script."""
    if row.animation is None or not (pictures / row.animation).is_file():
        return ""
    with Image.open(pictures / row.animation) as film:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
        seconds = sum(frame.info.get("duration", 0) for frame in ImageSequence.Iterator(film)) / 1000
    source, count = webp(frames, limit)
    width, height = frames[0].size
    still = math.ceil(0.6 * (count - 1)) / max(1, count - 1)
    style = f"--frames:{count};--seconds:{max(2.0, seconds):.1f}s;--still:{still:.1%};aspect-ratio:{width}/{height}"
    return (
        f'<div class="film" role="img" aria-label="generation, {escape(row.name)}" '
        f'style="{style};background-image:url({source})"></div>'
    )


def webp(frames: list[Image.Image], limit: int) -> tuple[str, int]:
    """Return frames side by side, without loss, and their number: as many as the limits allow, the last one kept."""
    while True:
        width, height = frames[0].size
        strip = Image.new("RGB", (width * len(frames), height))
        for k, frame in enumerate(frames):
            strip.paste(frame, (k * width, 0))
        out = io.BytesIO()
        if strip.width <= _WIDEST:
            strip.save(out, "WEBP", lossless=True)
        size = out.tell() or limit * strip.width / _WIDEST
        if len(frames) < 3 or size <= limit:
            return _uri(out.getvalue(), "image/webp"), len(frames)
        frames = [*frames[: -1 : math.ceil(size / limit)], frames[-1]]


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _rest(row: Row) -> str:
    """Return the name of a row beside its card's title."""
    title = next(iter(row.seedless), "")
    others = phrase({axis: value for axis, value in row.seedless.items() if axis != title})
    return others or (row.plan if row.settings else row.partition)


def _maps(row: Row, span: tuple[float, float]) -> list[str]:
    plan, likelihood = row.map, row.likelihood
    if plan is None:
        return []
    last, one, figures = max(plan.step_L), ", one draw" if plan.random else "", []
    if plan.rank_L != plan.step_L:
        rank = _map(plan, plan.rank_L, f"Rank map, {row.plan}", (0, len(plan.rank_L) - 1), "rank {}", not plan.random)
        figures.append(_figure(rank, f"rank{one}"))
    traced = not plan.random and not figures
    step = _map(plan, plan.step_L, f"Step map, {row.plan}", (0, last), "step {}", traced)
    figures.append(_figure(step, f"step, {last + 1} in all{one}"))
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


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f}\N{NO-BREAK SPACE}s" if seconds < 120 else f"{seconds / 60:.1f}\N{NO-BREAK SPACE}min"

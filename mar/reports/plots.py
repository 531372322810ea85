"""Every plot of a report and of the commands, by matplotlib: PNG files, and SVG inside the page.

A function returns a figure, or None without data. ``save`` writes PNG; ``svg`` returns markup whose black follows the
page's text colour.

K AR steps
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from PIL import Image

from mar.experiments.grid import ORDERS, PARTITION, PLAN, VARIANT, phrase
from mar.experiments.result import AblationResult, Row, TrainedModel, generation_rates
from mar.experiments.statistics import FIGURES, in_bits, numbered, values_of
from mar.heads import HEADS
from mar.metrics.statistics import kind_of, spread
from mar.reports.curves import crossings, entries, groups, head_of, label, moment
from mar.reports.verdict import named, reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mar.core.table import Table
    from mar.likelihood.consistency import Consistency, Profile
    from mar.likelihood.exposure import Curve, Exposure
    from mar.likelihood.set_sizes import Predicted
    from mar.likelihood.summary import Likelihood
    from mar.metrics.statistics import Difference

DATA = "data"  # the axis whose values have a panel of their own
FIRST, SECOND, MUTED = "#0b6e99", "#e4572e", "#7f7f7f"
_COLUMNS = 4  # of panels
_BITS = math.log(2.0)  # nats
styled = rc_context(
    {
        "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.5, "axes.labelsize": 8, "axes.titlesize": 9,
        "figure.labelsize": 9, "figure.titlesize": 10, "xtick.labelsize": 7, "ytick.labelsize": 7,
        "legend.fontsize": 7, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 4,
        "patch.linewidth": 0, "image.cmap": "viridis", "figure.constrained_layout.use": True, "savefig.dpi": 150,
        "svg.fonttype": "none",
    }
)  # fmt: skip


# Forms.


@styled
def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


@styled
def svg(figure: Figure, label: str) -> str:
    """Return the figure as markup; ``label`` is its text for a screen reader.

    An artist with the gid "row 3: text" belongs to row 3 of the table, and shows the text under the pointer.
    """
    out = io.StringIO()
    with rc_context({"svg.hashsalt": f"{label} {figure.get_figwidth()}"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    away = r'<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->| font-family: [^;"]*;| transform="rotate\(-0 [^"]*"'
    text = re.sub(away, "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"\s*\n\s*", " ", re.sub(r">\s*\n\s*<", "><", text))
    shorter = re.compile(r"(\.\d)\d+")  # digits of coordinates, never of a text or a name
    text = re.sub(r'<(?!g id="row)[^>]*>', lambda tag: shorter.sub(r"\1", tag[0]), text)
    text = re.sub(r'<g id="row ([\d ]+|all): ([^"]*)">', r'<g class="point" data-rows="\1"><title>\2</title>', text)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # several figures share a page
    text = text.replace("#000000", "currentColor").replace(FIRST, "var(--accent)").replace("#ffffff", "var(--surface)")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    return re.sub(r"<svg[^>]*>", f'<svg class="chart" {box[0]} role="img" aria-label="{escape(label)}">', text, count=1)


def heat_map(rows: Sequence[Sequence[float]], low: float, high: float) -> str:
    """Return a picture (a data URI) with a pixel a cell, viridis from ``low`` to ``high``; missing cells are clear."""
    width, out = max(map(len, rows)), io.BytesIO()
    filled = np.ma.masked_invalid([[*row, *[math.nan] * (width - len(row))] for row in rows])
    colours = colormaps["viridis"](Normalize(low, high if high > low else low + 1.0)(filled), bytes=True)
    Image.fromarray(colours).save(out, "WEBP", lossless=True, exact=True)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def write_pictures(result: AblationResult, folder: Path) -> list[Path]:
    """Write the pictures that the result has data for; return their paths."""
    found = {name: make(result) for name, make in PICTURES.items()}
    return [save(figure, folder / name) for name, figure in found.items() if figure is not None]


def _panels(n: int, width: float, height: float, columns: int = _COLUMNS, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``n`` panels, sizes in inches, in rows of at most ``columns``."""
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    figure = Figure((width * columns, height * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for panel in axes[n:]:
        panel.set_axis_off()
    return figure, axes[:n]


# Training.


@styled
def learning_curves(result: AblationResult) -> Figure | None:
    """Validation loss against images seen, a panel for each value of an axis; of one model also its own loss. A dot
    marks the scored weights, a dotted line the point from which a curve stays below the reference's."""
    found = groups(result)
    if not found:
        return None
    single = not result.axes
    kinds = {head_of(model) for models in found.values() for model in models}
    figure, axes = _panels(len(found), 7.0 if single else 3.4, 2.8, sharey=len(kinds) == 1)
    highest = _highest([model for models in found.values() for model in models])
    for panel, (name, models) in zip(axes, found.items(), strict=True):
        heads = [HEADS.get(head_of(model)) for model in models]
        unit, scale = ("bits", _BITS) if all(head is None or head.loss_is_nll for head in heads) else ("loss", 1.0)
        shown = entries(models)
        crossing = crossings(shown, result.grid.get("reference"))
        for number, (entry, alike) in enumerate(shown.items()):
            colour, text = f"C{number % 10}", label(entry, alike)
            if entry in crossing:
                panel.axvline(crossing[entry], color=colour, linestyle=":")
                text += f"\nbelow from {moment(crossing[entry], alike)}"
            for training in (model.training for model in alike if model.training is not None):
                if single:
                    seen = [at * training.batch_size for at in training.loss_iteration]
                    panel.plot(seen, np.divide(training.loss_nats, scale), color=MUTED, label="training")
                at, dot = training.validation_iteration, training.scored
                x, y = [each * training.batch_size for each in at], np.divide(training.validation_nats, scale)
                mark = [at.index(dot)] if dot in at else []
                panel.plot(x, y, "o-", markevery=mark, color=colour, label=text)
                text = None  # the seeds of a setting are one entry
        low, high = highest if len(kinds) == 1 else _highest(models)
        panel.set(
            title="" if single else name,
            ylim=np.divide((low - 0.05 * (high - low), high), scale),
        )
        panel.set_ylabel("" if len(kinds) == 1 else f"{unit} per token")
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.legend()
    figure.supxlabel("images seen in training")
    figure.supylabel(
        f"{unit} per token" if single else f"validation, {unit} per token" if len(kinds) == 1 else "validation"
    )
    return figure


def _highest(models: Sequence[TrainedModel]) -> tuple[float, float]:
    """Return the range to show, in nats: up to a fifth above the lowest values of nine models in ten, so that curves
    that overfit leave the picture at the top."""
    lowest = sorted(min(t.validation_nats or t.loss_nats) for model in models if (t := model.training) is not None)
    high = lowest[int(0.9 * (len(lowest) - 1))]
    return lowest[0], high + 0.2 * abs(high)


# Differences to the reference.


Mark = tuple[bool, float, float, float, str]  # of sets; the difference and its interval; in words


@lru_cache(maxsize=4)
def _marks(result: AblationResult) -> tuple[dict[str, list[Mark]], float | None, str]:
    """Return the marks of each line, the NLL of the reference (None: there are several), and the unit."""
    names, lines, unit = {row.difference.reference for row in result.rows if row.difference}, {}, "nats"
    bases = [group for _, group in numbered(result) if group[0].name in names]
    origin = spread(values_of(bases[0], FIGURES["nll"]) or [0.0]).mean if len(bases) == 1 else 0.0
    for rows, group in numbered(result):
        row, found = group[0], group[0].difference
        values = [0.0] if group in bases else values_of(group, FIGURES["difference"])
        if not (values and values_of(group, FIGURES["nll"])) or (group in bases and len(bases) > 1):
            continue
        mean = float(np.mean(values))
        ends = found and (found.interval_bits_per_dim or found.interval_nats)
        low, high = (spread(values).interval if len(values) > 1 else ends) or (mean, mean)
        if found is not None:
            unit = "nats" if found.bits_per_dim is None else "bits/dim"
        settings = {axis: name for axis, name in row.seedless.items() if axis not in (PLAN, PARTITION)}
        told = "ordering" in row.settings or row.ordering in row.settings.values()
        line = phrase({**settings, **({} if told else {PLAN: row.ordering})})
        said = f"row {rows}: {line}, {row.partition}: {origin + mean:.4g}, difference {mean:+.4g}"
        said += f" [{low:+.4g}, {high:+.4g}]" if high > low else ""
        lines.setdefault(line, []).append((row.partition != "singles", mean, low, high, said))
    return lines if names else {}, origin if len(bases) == 1 else None, unit


@styled
def differences(result: AblationResult, width: float = 8.6) -> Figure | None:
    """A dumbbell a line: the NLL of each row, with the interval of its paired difference to the reference.

    Rows that differ in their sets alone share a line: dots for one token at a time, rings for sets; best lines first.
    Intervals are over images, or of several seeds Student's over seeds. With several references the axis is the
    difference.
    """
    lines, origin, unit = _marks(result)
    if not lines:
        return None
    start = origin or 0.0
    kinds = {of_sets for marks in lines.values() for of_sets, *_ in marks}
    figure, (panel,) = _panels(1, width, 1.0 + 0.26 * len(lines))
    for y, (_, marks) in enumerate(ordered := sorted(lines.items(), key=lambda line: min(line[1])[:2])):
        means, numbers = [mean for _, mean, *_ in marks], " ".join(said[4:].split(":")[0] for *_, said in marks)
        joined = f"row {numbers}: {max(means) - min(means):.4g} apart"
        panel.plot((start + min(means), start + max(means)), (y, y), color=MUTED, alpha=0.35, lw=2.5, gid=joined)
        for of_sets, mean, low, high, said in marks:
            colour, shape = (SECOND, {"mfc": "white", "mew": 1.5}) if of_sets else (FIRST, {})
            panel.plot((start + low, start + high), (y, y), color=colour, gid=said)
            panel.plot(start + mean, y, "o", markersize=5.5, color=colour, gid=said, **shape)
    panel.axvline(start, color=MUTED, linewidth=0.8, linestyle="--", zorder=0)
    if len(kinds) == 2:
        dot, ring = panel.plot([], [], "o", color=FIRST), panel.plot([], [], "o", color=SECOND, mfc="white", mew=1.5)
        figure.legend([*dot, *ring], ["one token at a time", "sets of tokens"], loc="outside upper left", ncols=2)
    panel.set_yticks(range(len(ordered)), [name for name, _ in ordered], fontsize=8.5)
    text = f"NLL, {unit}" if origin is not None else f"NLL minus the reference's, {unit}"
    panel.set(ylim=(len(lines) - 0.5, -0.5), xlabel=f"{text}; dashed: {reference(result)}")
    return figure


# Quality against speed.


@dataclass(frozen=True)
class Point:
    """The seeds of a row: their indices in the result, and means of generated images per second and of a quality where
    lower is better."""

    row: str
    name: str
    speed: float
    quality: float
    sd: float = 0.0  # of the quality, over seeds
    of_sets: bool = False


@lru_cache(maxsize=4)
def panels(result: AblationResult) -> dict[str, list[Point]]:
    """Return title -> points, for the NLL and for the FID, of the rows with a quality and a speed. Kinds of likelihood,
    data sets and, of latents, tokenizers do not compare: each has a panel."""
    data, latents, found = _differing(result, "data"), _differing(result, "tokenizer"), {}
    rates = dict(zip(map(id, result.rows), generation_rates(result), strict=True))
    for rows, group in numbered(result):
        row, speeds = group[0], values_of(group, lambda row: rates[id(row)])
        if not speeds:
            continue
        titles = {"fid": f"FID{data[row.model]}"}
        if row.likelihood is not None:
            of_latents = row.likelihood.bits_per_dim is None
            title = f"NLL ({kind_of(row.likelihood)}), {'nats' if of_latents else 'bits/dim'}{data[row.model]}"
            titles["nll"] = title + latents[row.model] if of_latents else title
        for of, title in titles.items():
            if values := values_of(group, FIGURES[of]):
                mean = spread(values)
                point = Point(
                    rows, named(row), float(np.mean(speeds)), mean.mean, mean.sd or 0.0, row.partition != "singles"
                )
                found.setdefault(title, []).append(point)
    return dict(sorted(found.items(), key=lambda panel: panel[0].startswith("FID")))


def against_speed(result: AblationResult) -> dict[str, list[Point]]:
    """Return the panels that ``differences`` does not replace: of FIDs, and of likelihoods without a reference."""
    compared = any(row.difference for row in result.rows)
    return {title: points for title, points in panels(result).items() if not compared or title.startswith("FID")}


def front(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto-optimal points, from slow to fast."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.speed, p.quality)):
        if not kept or point.quality < kept[-1].quality:
            kept.append(point)
    return kept[::-1]


@styled
def pareto(found: Mapping[str, Sequence[Point]], width: float = 8.6) -> Figure | None:
    """Quality against speed: ``panels`` under one another, the Pareto-optimal points named. Dots are rows of one token
    at a time, rings of sets; bars are ± a deviation over seeds."""
    if not found:
        return None
    figure, axes = _panels(len(found), width, 2.0 + 0.3 * width, columns=1)
    for panel, (title, points) in zip(axes, found.items(), strict=True):
        best, speeds = front(points), [point.speed for point in points]
        line = [p.speed for p in best], [p.quality for p in best]
        panel.step(*line, color=FIRST, alpha=0.6, zorder=1, gid=f"row all: {len(best)} rows that no other row beats")
        for point in points:
            said = f"row {point.row}: {point.name}: {point.quality:.4g} at {point.speed:.4g} images/s"
            colour, shape = (SECOND, {"mfc": "white", "mew": 1.2}) if point.of_sets else (FIRST, {})
            ends = point.quality - point.sd, point.quality + point.sd
            panel.plot((point.speed, point.speed), ends, color=colour, alpha=0.4, gid=said)
            panel.plot(point.speed, point.quality, "o", color=colour, gid=said, **shape)
        for point in best:
            right = point.speed**2 > min(speeds) * max(speeds)  # the name stays inside the axes
            place, offset, align = (point.speed, point.quality), (-5 if right else 5, 5), "right" if right else "left"
            panel.annotate(point.name, place, offset, textcoords="offset points", ha=align, fontsize=8, color=FIRST)
        panel.set(xlabel="generated images/s", ylabel=title)
        if max(speeds) > 10 * min(speeds):
            panel.set_xscale("log")
    return figure


def _differing(result: AblationResult, section: str) -> dict[str, str]:
    """Return model -> the options of a section of its recipe in which the models differ, as a suffix of a title."""
    options = {model.name: model.recipe.get(section, {}) for model in result.models}
    keys = sorted({key for each in options.values() for key in each})
    differ = [key for key in keys if len({str(each.get(key)) for each in options.values()}) > 1]
    return {name: "".join(f", {Path(str(each.get(key))).name}" for key in differ) for name, each in options.items()}


# NLL against a number: orders in a mixture, AR steps. A line is number -> the NLL of each seed, bits/dim or nats.

Lines = dict[str, dict[int, list[float]]]


def mixtures(result: AblationResult) -> dict[str, Lines]:
    """Return the lines of each data set: orders -> NLL. A fixed order has one point; "mean of 16" is no mixture."""
    rows = [row for row in result.rows if row.settings.get(ORDERS, "").isdecimal()]
    return _lines((row, _named_without(row, ORDERS) or row.plan, int(row.settings[ORDERS])) for row in rows)


def budgets(result: AblationResult) -> dict[str, Lines]:
    """Return the lines of each data set: AR steps -> NLL, of a model, an ordering and a kind of partition in at least
    three sizes; of several variants the first, of several orders the first."""
    scored = [row for row in result.rows if row.likelihood is not None]
    first = {VARIANT: scored[0].settings.get(VARIANT, ""), ORDERS: "1"} if scored else {}
    rows = [row for row in scored if all(row.settings.get(axis, name) == name for axis, name in first.items())]
    lines = {
        data: {name: line for name, line in lines.items() if len(line) > 2}
        for data, lines in _lines(_sized(rows)).items()
    }
    return {data: kept for data, kept in lines.items() if kept}


def _sized(rows: list[Row]) -> Iterator[tuple[Row, str, int]]:
    """Yield each row with its line and its steps; one token at a time ends the line of every schedule."""
    schedules: dict[str, dict[str, None]] = {}  # in the order of the table
    named = []
    for row in rows:
        name = _named_without(row, PLAN, PARTITION, VARIANT, ORDERS)
        line, own = f"{name}, {row.ordering}" if name else row.ordering, row.partition.split(":")[0]
        named.append((row, line, own))
        schedules.setdefault(line, {}).update({} if own == "singles" else {own: None})
    for row, line, own in named:
        assert row.likelihood is not None
        for schedule in schedules[line] if own == "singles" else [own]:
            yield row, f"{line}, {schedule}", row.likelihood.steps


def _lines(points: Iterable[tuple[Row, str, int]]) -> dict[str, Lines]:
    found: dict[str, Lines] = {}
    for row, name, number in points:
        nll = in_bits(row.likelihood)
        if nll is not None:
            line = found.setdefault(row.settings.get(DATA, ""), {}).setdefault(name, {})
            line.setdefault(number, []).append(nll)
    return found


def _named_without(row: Row, *axes: str) -> str:
    """Return the settings of a row without its seed, its data set and ``axes``."""
    return phrase({axis: value for axis, value in row.seedless.items() if axis not in (DATA, *axes)})


@styled
def _curves(result: AblationResult, found: dict[str, Lines], label: str) -> Figure | None:
    """The mean over seeds and a band from the lowest to the highest, by doublings; a line of one point is dotted. None
    if no line has two points."""
    if not any(len(line) > 1 for lines in found.values() for line in lines.values()):
        return None
    figure, axes = _panels(len(found), 4.6, 3.4, columns=len(found))
    for panel, (data, lines) in zip(axes, found.items(), strict=True):
        for number, (name, line) in enumerate(lines.items()):
            numbers = sorted(line)
            low, mean, high = ([of(line[n]) for n in numbers] for of in (min, np.mean, max))
            if len(numbers) == 1:
                panel.axhline(float(mean[0]), linestyle=":", color=f"C{number % 10}", label=name)
            else:
                _band(panel, numbers, mean, (low, high), f"C{number % 10}", name, marker="o")
        panel.set_title(data)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(_plain)
        panel.legend()
    bits = any(row.likelihood is not None and row.likelihood.bits_per_dim is not None for row in result.rows)
    figure.supxlabel(label)
    figure.supylabel("NLL, bits/dim" if bits else "NLL, nats")
    return figure


def _band(panel: Axes, x: Any, y: Any, edges: tuple[Any, Any], colour: str, label: str, marker: str | None) -> None:
    panel.plot(x, y, color=colour, label=label, marker=marker, markersize=3)
    panel.fill_between(x, *edges, color=colour, alpha=0.2)


def _plain(value: float, _: Any) -> str:
    """Format the tick of a logarithmic axis."""
    return f"{value:g}"


def _consistencies(result: AblationResult) -> Figure | None:
    """Of rows that differ in their seed alone the first; None if no row has an answer."""
    found = {named(group[0]): group[0].answers.get("consistency") for _, group in numbered(result)}
    kept = {name: answer for name, answer in found.items() if answer is not None}
    return consistency(kept) if kept else None


PICTURES: dict[str, Callable[[AblationResult], Figure | None]] = {
    "learning-curves.png": learning_curves,
    # EoNADE's curve (Uria, Murray & Larochelle 2014), and the NLL in fewer and fewer steps (ARDM, arXiv 2110.02037)
    "orders-curve.png": lambda result: _curves(result, mixtures(result), "orders in the mixture"),
    "steps-curve.png": lambda result: _curves(result, budgets(result), "AR steps"),
    "consistency.png": _consistencies,
    "differences.png": differences,
    "pareto.png": lambda result: pareto(against_speed(result)),
}


def thumbnail(result: AblationResult) -> Figure:
    """Return a small plot of the result: of the kinds in ``PICTURES`` the first that it has data for."""
    narrow = [lambda: differences(result, 4.3), lambda: pareto(against_speed(result), 4.3)]
    others = [lambda name=name: PICTURES[name](result) for name in ("steps-curve.png", "learning-curves.png")]
    return next((figure for make in (*narrow, *others) if (figure := make()) is not None), Figure((4.3, 2.7)))


# One likelihood.


@styled
def likelihoods(
    named: Mapping[str, Likelihood], shape: tuple[int, ...] = (), title: str = "", width: float = 9.0
) -> Figure:
    """Nats per token along the order of each plan, under a ``title`` with ± one standard error; and for grids of two or
    three dimensions the mean nats of each position (summed over channels), on one scale."""
    columns, curves = min(_COLUMNS, len(named)), 0.47 * width
    rows = math.ceil(len(named) / columns) if len(shape) > 1 else 0
    figure = Figure((width, curves + 2.6 * rows))
    spaces = figure.add_gridspec(1 + rows, columns if rows else 1, height_ratios=[curves] + [2.6] * rows)
    panel = figure.add_subplot(spaces[0, :])
    for number, (name, found) in enumerate(named.items()):
        tokens_K = np.array(found.tokens_per_step)
        end_K = np.cumsum(tokens_K)
        middle_K = (end_K - tokens_K / 2) / end_K[-1]
        nats_K = np.array(found.nats_per_step) / tokens_K
        error_K = np.array(found.standard_error_per_step or np.zeros(len(tokens_K))) / tokens_K
        known_K = np.isfinite(nats_K)
        middle_K, nats_K, error_K = middle_K[known_K], nats_K[known_K], error_K[known_K]
        panel.plot(middle_K, nats_K, label=name, marker="." if len(nats_K) < 40 else None)
        if title:  # a page has many curves
            panel.fill_between(middle_K, nats_K - error_K, nats_K + error_K, color=f"C{number % 10}", alpha=0.2)
    panel.set(xlim=(0.0, 1.0), xlabel="place in the order, as a share of the tokens", ylabel="nats per token")
    panel.set(title=title, ylim=(min(0.0, panel.get_ylim()[0]), None))
    panel.legend()
    if rows:
        axes = [figure.add_subplot(spaces[1 + k // columns, k % columns]) for k in range(len(named))]
        maps = [np.reshape(found.nats_per_position, (*shape[:2], -1)).sum(-1) for found in named.values()]
        low, high = min(np.nanmin(m) for m in maps), max(np.nanmax(m) for m in maps)
        for one, name, values in zip(axes, named, maps, strict=True):
            image = one.imshow(values, vmin=low, vmax=high)
            one.set(title=name, xticks=[], yticks=[])
        figure.colorbar(image, ax=axes, label="nats per position", shrink=0.9)
    return figure


# Order consistency, exposure and set sizes.


@styled
def consistency(named: Mapping[str, Consistency], shape: tuple[int, ...] = (), title: str = "") -> Figure:
    """Violations of the chain rule by known tokens and by distance, with ± one standard error; then of one model on a
    grid of at least two dimensions their map by offset, of several the spread over orders against the NLL."""
    figure, (known, far, last) = _panels(3, 4.0, 3.6)

    def draw(panel: Axes, profile: Profile, colour: str, label: str) -> None:
        rms_K, error_K = np.array(profile.rms), np.nan_to_num(profile.rms_standard_error)
        _band(panel, profile.at, rms_K, (rms_K - error_K, rms_K + error_K), colour, label, "o")

    for number, (name, found) in enumerate(named.items()):
        draw(known, found.by_known, f"C{number % 10}", name)
        draw(far, found.by_distance, f"C{number % 10}", name)
    known.set(title="by known tokens", xlabel="tokens known before the pair", ylabel="chain rule, rms nats per pair")
    far.set(title="by distance", xlabel="distance of the pair, tokens", ylabel="rms nats per pair")
    for panel in (known, far):
        panel.set_ylim(0.0, None)
    if len(named) == 1 and (offsets := next(iter(named.values())).rms_by_offset):
        image = last.imshow(np.reshape(offsets, shape[:2]))
        last.grid(False)
        last.set(title="by offset", xlabel="columns apart", ylabel="rows apart")
        figure.colorbar(image, ax=last, label="rms nats per pair", shrink=0.9)
    else:
        for number, found in enumerate(named.values()):
            (x, x_error), (y, y_error) = (vars(each).values() for each in (found.nats_per_token, found.spread))
            last.errorbar(x, y, y_error, x_error, fmt="o", color=f"C{number % 10}")
        last.set(title="against the NLL", xlabel="NLL, nats per token", ylabel="spread over orders, nats per token")
        last.set_ylim(0.0, None)
        known.legend()
    figure.suptitle(title)
    return figure


_NORMAL = 1.96  # standard errors of a 95 % interval
_SCHEDULES = {"optimal": (FIRST, 1.0), "equal": (MUTED, 0.97), "cosine": (SECOND, 1.03)}  # dots of one K stand apart


@styled
def exposure(result: Exposure, title: str) -> Figure:
    """Left nats per token of each step, right misfit and exposure summed, in nats per image; bands of 95 %."""
    figure, (left, right) = _panels(2, 5.2, 4.0)

    def draw(panel: Axes, curve: Curve, per_K: Any, colour: str, label: str) -> None:
        mean_K, error_K = np.array(curve.nats) / per_K, _NORMAL * np.array(curve.standard_error) / per_K
        _band(panel, range(len(mean_K)), mean_K, (mean_K - error_K, mean_K + error_K), colour, label, ".")

    tokens_K = np.array(result.tokens_per_step)
    draw(left, result.data, tokens_K, FIRST, "the data, after data")
    draw(left, result.expected_after_data, tokens_K, MUTED, "expected by the model, after data")
    draw(left, result.own, tokens_K, SECOND, "its samples, after its samples")
    left.set(title="NLL of each step", xlabel="AR step", ylabel="nats per token")
    draw(right, result.misfit_summed, 1.0, FIRST, "misfit: data harder than expected")
    draw(right, result.exposure_summed, 1.0, SECOND, "exposure: expected after own minus after data")
    right.axhline(0.0, color=MUTED, lw=0.8)
    right.set(title="summed up to the step", xlabel="AR step", ylabel="nats per image")
    for panel in (left, right):
        panel.legend()
    figure.suptitle(title)
    return figure


@styled
def set_sizes(predicted: Sequence[Predicted], tested: Mapping[tuple[str, int], Difference], title: str) -> Figure:
    """The cost of parallel generation. Left the excess over K, lines predicted and dots measured; right the best sets.

    Args:
        tested: (schedule, K) -> its NLL on test images minus that of one token at a time under the same orders.
    """
    figure, (left, right) = _panels(2, 5.2, 4.2)
    for schedule, (colour, aside) in _SCHEDULES.items():
        excess = [row.excess_nats[schedule] or math.nan for row in predicted]  # a logarithmic axis has no zero
        left.plot([row.k for row in predicted], excess, color=colour, label=f"{schedule}, predicted")
        for k, found in ((k, found) for (name, k), found in tested.items() if name == schedule):
            low, high = found.interval_nats
            spread = [[found.nats_per_image - low], [high - found.nats_per_image]]
            left.errorbar(aside * k, found.nats_per_image, spread, fmt="o", color=colour, capsize=2)
    left.set(title="cost of parallel generation", xlabel="sets K", ylabel="nats/image above one token at a time")
    for row in predicted:
        if any(k == row.k for _, k in tested):
            place = [(step + 0.5) / row.k for step in range(row.k)]
            right.plot(place, row.optimal_sizes, "o-", ms=3, label=f"K = {row.k}")
    right.set(title="the best sets", xlabel="share of the steps done", ylabel="tokens in the set")
    left.set_xscale("log", base=2)
    for panel, base in ((left, 10), (right, 2)):
        panel.set_yscale("log", base=base)
        panel.legend()
        for numbers in (panel.xaxis, panel.yaxis):
            numbers.set_major_formatter(_plain)
            numbers.set_minor_formatter("")
    figure.suptitle(title)
    return figure


@styled
def sweep(summary: dict[str, Any]) -> Figure:
    """FID over the first axis of a sweep, a line for every setting and value of the other axes; ``summary`` as
    ``mar.metrics.generated.sweep`` writes it."""
    (x, *others), figure = summary["axes"], None
    figure, (panel,) = _panels(1, 7.0, 4.4)
    numbers = all(isinstance(value, int | float) for value in summary["axes"][x])
    for one in summary["sweeps"]:
        for values in product(*(summary["axes"][key] for key in others)):
            fixed = dict(zip(others, values, strict=True))
            line = [point for point in one["points"] if fixed.items() <= point.items()]
            name = " ".join([one["setting"], *(f"{key}={value}" for key, value in fixed.items())])
            place = [point[x] if numbers else str(point[x]) for point in line]
            panel.plot(place, [point["fid"] for point in line], marker=".", label=name)
    if floor := summary["sweeps"][0]["points"][0]["noise_floor"]:
        panel.axhline(floor, color=MUTED, linewidth=0.8, linestyle=":", label="real images")
    panel.set(title=f"{summary['n_images']} images a point", xlabel=x, ylabel="FID")
    panel.legend()
    return figure


@styled
def matrix(table: Table[dict[str, Row]]) -> Figure:
    """A heat map of a pivot with its texts; the marked cells, each run's own plan, are framed."""
    from matplotlib.patches import Rectangle

    names, *columns = table.columns
    means = np.array([[column.value(row) for column in columns] for row in table.rows])
    figure, (panel,) = _panels(1, 2.6 + 1.5 * len(columns), 1.8 + 0.75 * len(means))
    panel.grid(False)
    image = panel.imshow(means, cmap="viridis_r", aspect="auto")
    colours = image.to_rgba(means)
    for j, column in enumerate(columns):
        framed = column.best(table.rows)
        for i, row in enumerate(table.rows):
            dark = float(np.dot(colours[i, j][:3], (0.3, 0.59, 0.11))) < 0.5
            text = column.show(row).replace(" ±", "\n±")
            panel.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
            if i in framed:
                panel.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor="crimson", lw=2))
    panel.set_xticks(range(len(columns)), [column.title for column in columns])
    panel.set_yticks(range(len(means)), [names.show(row) for row in table.rows])
    panel.set(xlabel="scored along", ylabel="run (its own plan framed)")
    panel.set_title(table.title)
    figure.colorbar(image, ax=panel)
    return figure

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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mar.experiments.grid import ORDERS, PARTITION, PLAN, SEED, VARIANT
from mar.experiments.result import AblationResult, Row, TrainedModel, Training, generation_rates
from mar.experiments.statistics import in_bits, settings_without_seed
from mar.metrics.statistics import kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mar.core.table import Table
    from mar.likelihood.exposure import Curve, Exposure
    from mar.likelihood.set_sizes import Predicted
    from mar.likelihood.summary import Likelihood

DATA = "data"  # the axis whose values have a panel of their own
FIRST, MUTED = "#0b6e99", "0.5"
_COLUMNS = 4  # of panels
_BITS = math.log(2.0)  # nats


# Forms.


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this many inches, drawn without a display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def svg(figure: Figure, label: str, hover: Mapping[str, tuple[str, int]] | None = None) -> str:
    """Return the figure as markup.

    Args:
        label: its text for a screen reader.
        hover: gid of an artist -> the text under the pointer, and the index of its row.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for gid, (said, row) in (hover or {}).items():
        text = text.replace(f'<g id="{gid}">', f'<g class="point" data-rows="{row}"><title>{escape(said)}</title>')
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # several figures share a page
    text = text.replace("#000000", "currentColor").replace(FIRST, "var(--accent)")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    return re.sub(r"<svg[^>]*>", f'<svg class="chart" {box[0]} role="img" aria-label="{escape(label)}">', text, count=1)


def heat_map(rows: Sequence[Sequence[float]], low: float, high: float) -> str:
    """Return a PNG (a data URI) with a pixel a cell, viridis from ``low`` to ``high``; missing cells are clear."""
    from matplotlib.image import imsave

    width = max(map(len, rows))
    filled = np.array([[*row, *[math.nan] * (width - len(row))] for row in rows])
    out = io.BytesIO()
    imsave(out, filled, vmin=low, vmax=high if high > low else low + 1.0, cmap="viridis", format="png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def write_pictures(result: AblationResult, folder: Path) -> list[Path]:
    """Write the pictures that the result has data for; return their paths."""
    found = {name: make(result) for name, make in PICTURES.items()}
    return [save(figure, folder / name) for name, figure in found.items() if figure is not None]


# Training.


def groups(result: AblationResult) -> dict[str, list[TrainedModel]]:
    """Return the trained models by their value on the first axis; one group without axes."""
    found: dict[str, list[TrainedModel]] = {}
    for model in result.models:
        if model.training is not None and model.training.validation_nats:
            found.setdefault(next(iter(model.settings.values()), model.name), []).append(model)
    return found


def learning_curves(result: AblationResult) -> Figure | None:
    """Validation loss against images seen, a panel for each value of the first axis."""
    found = groups(result)
    if not found:
        return None
    columns = min(_COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    figure = new_figure(3.4 * columns, 2.5 * rows)
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    limits = value_range([model for models in found.values() for model in models])
    for panel, (name, models) in zip(axes, found.items(), strict=False):
        _learning(panel, models, limits)
        panel.set_title(name, fontsize=9)
    for panel in axes[len(found) :]:
        panel.set_axis_off()
    figure.supxlabel("images seen in training", fontsize=9)
    figure.supylabel("validation, bits per token", fontsize=9)
    return figure


def learning_curve(models: list[TrainedModel], limits: tuple[float, float]) -> Figure:
    """One panel of ``learning_curves``, for the page."""
    figure = new_figure(3.8, 2.6)
    panel = figure.subplots()
    _learning(panel, models, limits)
    panel.set_xlabel("images seen in training", fontsize=8)
    panel.set_ylabel("validation, bits per token", fontsize=8)
    return figure


def training_curve(training: Training) -> Figure:
    """The loss of one training, and the validation loss of its averaged weights."""
    figure = new_figure(7.0, 2.8)
    panel = figure.subplots()
    curves = {"training": (training.loss_iteration, training.loss_nats)}
    curves["validation, averaged weights"] = (training.validation_iteration, training.validation_nats)
    for (name, (x, y)), colour in zip(curves.items(), (FIRST, "#b4480f"), strict=True):
        if y:
            panel.plot(x, y, linewidth=1.2, color=colour, label=name)
    seen = sorted(value for _, y in curves.values() for value in y)
    top = seen[int(0.97 * (len(seen) - 1))]  # the first iterations would flatten the rest
    margin = 0.08 * ((top - seen[0]) or 1.0)
    _style(panel, "iteration", "loss, nats per token", ylim=(seen[0] - margin, top + margin))
    return figure


def legend(models: list[TrainedModel]) -> dict[str, list[TrainedModel]]:
    """Return the entries of a panel's legend: the seeds of one setting together, with their verdicts."""
    by_setting: dict[str, list[TrainedModel]] = {}
    for model in models:
        settings = {axis: value for axis, value in list(model.settings.items())[1:] if axis != SEED}
        by_setting.setdefault(", ".join(settings.values()), []).append(model)
    found = {}
    for name, alike in by_setting.items():
        count = Counter(model.training.verdict for model in alike if model.training is not None)
        verdicts = ", ".join(f"{n} {verdict}" if len(alike) > 1 else verdict for verdict, n in count.items())
        found[f"{name} ({verdicts})" if name else verdicts] = alike
    return found


def value_range(models: list[TrainedModel]) -> tuple[float, float]:
    """Return the shown range of validation curves in nats: from the lowest value to a fifth above the lowest values of
    nine models in ten. Curves that overfit leave the picture at the top."""
    curves = [model.training.validation_nats for model in models if model.training is not None]
    lowest = sorted(min(curve) for curve in curves if curve)
    if not lowest:
        return 0.0, 1.0
    high = lowest[int(0.9 * (len(lowest) - 1))]
    high += 0.2 * abs(high)
    return lowest[0] - 0.05 * (high - lowest[0]), high


def _learning(panel: Axes, models: list[TrainedModel], limits: tuple[float, float]) -> None:
    """A line a model; a dot marks the scored weights."""
    for number, (label, alike) in enumerate(legend(models).items()):
        for model in alike:
            training = model.training
            assert training is not None
            x = [iteration * training.batch_size for iteration in training.validation_iteration]
            y = [nats / _BITS for nats in training.validation_nats]
            panel.plot(x, y, linewidth=1.2, color=f"C{number % 10}", label=label if model is alike[0] else None)
            if training.scored in training.validation_iteration:
                place = training.validation_iteration.index(training.scored)
                panel.plot(x[place], y[place], "o", markersize=4, color=f"C{number % 10}")
    _style(panel, "", "", ylim=(limits[0] / _BITS, limits[1] / _BITS))


# Quality against speed.


@dataclass(frozen=True)
class Point:
    """A row: its index in the result, generated images per second, and a quality where lower is better."""

    row: int
    name: str
    speed: float
    quality: float


def panels(result: AblationResult) -> dict[str, list[Point]]:
    """Return title -> points, for the NLL and for the FID, of the rows with a quality and a speed. Kinds of likelihood,
    data sets and, of latents, tokenizers do not compare: each has a panel."""
    data, latents, found = _differing(result, "data"), _differing(result, "tokenizer"), {}
    for number, (row, speed) in enumerate(zip(result.rows, generation_rates(result), strict=True)):
        if speed is None:
            continue
        if row.likelihood is not None and (nll := in_bits(row.likelihood)) is not None:
            of_latents = row.likelihood.bits_per_dim is None
            title = f"NLL ({kind_of(row.likelihood)}), {'nats' if of_latents else 'bits/dim'}{data[row.model]}"
            title += latents[row.model] if of_latents else ""
            found.setdefault(title, []).append(Point(number, row.name, speed, nll))
        if row.images is not None:
            found.setdefault(f"FID{data[row.model]}", []).append(Point(number, row.name, speed, row.images.fid))
    return dict(sorted(found.items(), key=lambda panel: panel[0].startswith("FID")))


def front(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto-optimal points, from slow to fast."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.speed, p.quality)):
        if not kept or point.quality < kept[-1].quality:
            kept.append(point)
    return kept[::-1]


def pareto(found: Mapping[str, Sequence[Point]]) -> Figure | None:
    """Quality against speed: ``panels`` under one another, the Pareto-optimal points named. The gid of a point is
    "point" and the index of its row."""
    if not found:
        return None
    figure = new_figure(8.6, 4.6 * len(found))
    for panel, (title, points) in zip(figure.subplots(len(found), 1, squeeze=False).flat, found.items(), strict=True):
        best = front(points)
        x, y = ([of(point) for point in best for _ in range(2)] for of in (lambda p: p.speed, lambda p: p.quality))
        panel.plot(x[:-1], y[1:], color=FIRST, linewidth=1, alpha=0.6)
        for point in points:
            colour = FIRST if point in best else MUTED
            panel.plot(point.speed, point.quality, "o", markersize=5, color=colour, gid=f"point{point.row}")
        speeds = [point.speed for point in points]
        for point in best:
            right = point.speed**2 > min(speeds) * max(speeds)  # the name stays inside the axes
            place, offset, align = (point.speed, point.quality), (-5 if right else 5, 5), "right" if right else "left"
            panel.annotate(point.name, place, offset, textcoords="offset points", ha=align, fontsize=8, color=FIRST)
        if max(speeds) > 10 * min(speeds):
            panel.set_xscale("log")
        _style(panel, "generated images/s", title)
    return figure


def _differing(result: AblationResult, section: str) -> dict[str, str]:
    """Return model -> the options of a section of its recipe in which the models differ, as a suffix of a title."""
    options = {model.name: model.recipe.get(section, {}) for model in result.models}
    keys = sorted({key for each in options.values() for key in each})
    differ = [key for key in keys if len({str(each.get(key)) for each in options.values()}) > 1]
    return {name: "".join(f", {each.get(key)}" for key in differ) for name, each in options.items()}


# NLL against a number: orders in a mixture, AR steps.


@dataclass(frozen=True)
class Line:
    """number (orders, steps) -> the NLL of each seed, bits/dim or nats."""

    name: str
    nll: dict[int, list[float]]


def mixtures(result: AblationResult) -> dict[str, list[Line]]:
    """Return the lines of each data set: orders -> NLL. A fixed order has one point; "mean of 16" is no mixture."""
    rows = [row for row in result.rows if row.settings.get(ORDERS, "").isdecimal()]
    return _lines((row, _named_without(row, ORDERS) or row.plan, int(row.settings[ORDERS])) for row in rows)


def orders_curve(result: AblationResult) -> Figure | None:
    """The NLL of mixtures of 1, 2, 4, … orders: EoNADE's curve (Uria, Murray & Larochelle 2014)."""
    return _curves(result, mixtures(result), "orders in the mixture")


def budgets(result: AblationResult) -> dict[str, list[Line]]:
    """Return the lines of each data set: AR steps -> NLL, of a model, an ordering and a kind of partition in at least
    three sizes; of several variants the first, of several orders the first."""
    scored = [row for row in result.rows if row.likelihood is not None]
    first = {VARIANT: scored[0].settings.get(VARIANT, ""), ORDERS: "1"} if scored else {}
    rows = [row for row in scored if all(row.settings.get(axis, name) == name for axis, name in first.items())]
    found = _lines(_sized(rows))
    kept = {data: [line for line in lines if len(line.nll) > 2] for data, lines in found.items()}
    return {data: lines for data, lines in kept.items() if lines}


def steps_curve(result: AblationResult) -> Figure | None:
    """The NLL in fewer and fewer steps, a line for each size schedule (as ARDM, arXiv 2110.02037)."""
    return _curves(result, budgets(result), "AR steps")


def _sized(rows: list[Row]) -> Iterator[tuple[Row, str, int]]:
    """Yield each row with its line and its steps; one token at a time ends the line of every schedule."""
    named = [(row, _named_without(row, PLAN, PARTITION, VARIANT, ORDERS)) for row in rows]
    lines = [(row, f"{name}, {row.ordering}" if name else row.ordering) for row, name in named]
    schedules: dict[str, dict[str, None]] = {}  # in the order of the table
    for row, line in lines:
        schedules.setdefault(line, {})[row.partition.split(":")[0]] = None
    for row, line in lines:
        own = row.partition.split(":")[0]
        assert row.likelihood is not None
        for schedule in schedules[line] if own == "singles" else [own]:
            if schedule != "singles":
                yield row, f"{line}, {schedule}", row.likelihood.steps


def _lines(points: Iterable[tuple[Row, str, int]]) -> dict[str, list[Line]]:
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row, name, number in points:
        nll = in_bits(row.likelihood)
        if nll is not None:
            of_data = found.setdefault(row.settings.get(DATA, ""), {})
            of_data.setdefault(name, {}).setdefault(number, []).append(nll)
    return {data: [Line(name, nll) for name, nll in named.items()] for data, named in found.items()}


def _named_without(row: Row, *axes: str) -> str:
    """The settings of a row without its seed, its data set and ``axes``."""
    return ", ".join(value for axis, value in settings_without_seed(row).items() if axis not in (DATA, *axes))


def _curves(result: AblationResult, found: dict[str, list[Line]], label: str) -> Figure | None:
    """The mean over seeds and a band from the lowest to the highest, by doublings; a line of one point is dotted. None
    if no line has two points."""
    if not any(len(line.nll) > 1 for lines in found.values() for line in lines):
        return None
    figure = new_figure(4.6 * len(found), 3.4)
    for panel, (data, lines) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        for number, line in enumerate(lines):
            colour, numbers = f"C{number % 10}", sorted(line.nll)
            mean = [math.fsum(line.nll[n]) / len(line.nll[n]) for n in numbers]
            if len(numbers) == 1:
                panel.axhline(mean[0], linestyle=":", linewidth=1.2, color=colour, label=line.name)
                continue
            panel.plot(numbers, mean, "o-", markersize=3, linewidth=1.2, color=colour, label=line.name)
            low, high = ([of(line.nll[n]) for n in numbers] for of in (min, max))
            panel.fill_between(numbers, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.set_title(data, fontsize=9)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _style(panel, "", "")
    bits = any(row.likelihood is not None and row.likelihood.bits_per_dim is not None for row in result.rows)
    figure.supxlabel(label, fontsize=9)
    figure.supylabel("NLL, bits/dim" if bits else "NLL, nats", fontsize=9)
    return figure


PICTURES: dict[str, Callable[[AblationResult], Figure | None]] = {
    "learning-curves.png": learning_curves,
    "orders-curve.png": orders_curve,
    "steps-curve.png": steps_curve,
    "pareto.png": lambda result: pareto(panels(result)),
}


# One likelihood.


def along_the_order(named: Mapping[str, Likelihood]) -> Figure:
    """Bits per token against tokens known before the step, flat along each step."""
    figure = new_figure(3.8, 2.6)
    panel = figure.subplots()
    for number, (name, likelihood) in enumerate(named.items()):
        ends = list(accumulate(likelihood.tokens_per_step))
        pairs = zip(likelihood.nats_per_step, likelihood.tokens_per_step, strict=True)
        bits = [nats / tokens / _BITS for nats, tokens in pairs]
        panel.stairs(bits, [0.0, *ends], baseline=None, linewidth=1.1, color=f"C{number % 10}", label=name)
    panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
    _style(panel, "tokens known", "bits per token")
    return figure


def likelihoods(named: Mapping[str, Likelihood], shape: tuple[int, ...], title: str) -> Figure:
    """Nats per token along the order of each plan with ± one standard error, and for grids of two or three dimensions
    the mean nats of each position (summed over channels), on one scale."""
    columns = min(_COLUMNS, len(named))
    rows = math.ceil(len(named) / columns) if len(shape) > 1 else 0
    figure = new_figure(9.0, 4.2 + 2.6 * rows)
    spaces = figure.add_gridspec(1 + rows, columns if rows else 1, height_ratios=[4.2] + [2.6] * rows)
    panel = figure.add_subplot(spaces[0, :])
    for name, found in named.items():
        tokens_K = np.array(found.tokens_per_step)
        end_K = np.cumsum(tokens_K)
        middle_K = (end_K - tokens_K / 2) / end_K[-1]
        nats_K, error_K = np.array(found.nats_per_step) / tokens_K, np.array(found.standard_error_per_step) / tokens_K
        known_K = np.isfinite(nats_K)
        middle_K, nats_K, error_K = middle_K[known_K], nats_K[known_K], error_K[known_K]
        (line,) = panel.plot(middle_K, nats_K, linewidth=1.2, label=name, marker="." if len(nats_K) < 40 else None)
        panel.fill_between(middle_K, nats_K - error_K, nats_K + error_K, color=line.get_color(), alpha=0.2, linewidth=0)
    panel.set_xlim(0.0, 1.0)
    panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
    panel.set_title(title, fontsize=10)
    _style(panel, "place in the order, as a share of the tokens", "nats per token")
    if rows:
        axes = [figure.add_subplot(spaces[1 + k // columns, k % columns]) for k in range(len(named))]
        maps = [np.reshape(found.nats_per_position, (*shape[:2], -1)).sum(-1) for found in named.values()]
        low, high = min(np.nanmin(m) for m in maps), max(np.nanmax(m) for m in maps)
        for one, name, values in zip(axes, named, maps, strict=True):
            image = one.imshow(values, vmin=low, vmax=high, cmap="viridis")
            one.set_title(name, fontsize=9)
            one.set_xticks([])
            one.set_yticks([])
        figure.colorbar(image, ax=axes, label="nats per position", shrink=0.9)
    return figure


# Exposure and set sizes.

_EXPOSURE = {"data": FIRST, "own": "#e4572e", "expected": "#6b7280"}
_NORMAL = 1.96  # standard errors of a 95 % interval
_SCHEDULES = {"optimal": "#1b6ca8", "equal": "#8a8f9c", "cosine": "#e4572e"}
_ASIDE = {"optimal": 1.0, "equal": 0.97, "cosine": 1.03}  # so that dots of one K do not hide each other


def exposure(result: Exposure, title: str) -> Figure:
    """Left nats per token of each step, right misfit and exposure summed, in nats per image; bands of 95 %."""
    figure = new_figure(10.5, 4.0)
    left, right = figure.subplots(1, 2)
    tokens_K = np.array(result.tokens_per_step)
    _band(left, result.data, tokens_K, "data", "the data, after data")
    _band(left, result.expected_after_data, tokens_K, "expected", "expected by the model, after data")
    _band(left, result.own, tokens_K, "own", "its samples, after its samples")
    left.set_title("NLL of each step")
    _style(left, "AR step", "nats per token")
    one_K = np.ones_like(tokens_K)
    _band(right, result.misfit_summed, one_K, "data", "misfit: data harder than expected")
    _band(right, result.exposure_summed, one_K, "own", "exposure: expected after own minus after data")
    right.axhline(0.0, color=_EXPOSURE["expected"], lw=0.8)
    right.set_title("summed up to the step")
    _style(right, "AR step", "nats per image")
    figure.suptitle(title, fontsize=10)
    return figure


def _band(panel: Axes, curve: Curve, per_K: np.ndarray, colour: str, label: str) -> None:
    mean_K, error_K = np.array(curve.nats) / per_K, np.array(curve.standard_error) / per_K
    step_K, colour = np.arange(len(mean_K)), _EXPOSURE[colour]
    panel.plot(step_K, mean_K, color=colour, label=label, lw=1.4, marker="o", ms=2)
    panel.fill_between(step_K, mean_K - _NORMAL * error_K, mean_K + _NORMAL * error_K, color=colour, alpha=0.18, lw=0)


@dataclass(frozen=True)
class Tested:
    """A schedule's measured excess on the test split.

    Attributes:
        k: AR steps.
        schedule: its name.
        excess_nats: mean over images of its NLL minus that of one token at a time under the same orders.
        interval_nats: of that mean.
    """

    k: int
    schedule: str
    excess_nats: float
    interval_nats: tuple[float, float]


def set_sizes(predicted: Sequence[Predicted], tested: Sequence[Tested], title: str) -> Figure:
    """The cost of parallel generation. Left the excess over K, lines predicted and dots tested; right the best sets."""
    figure = new_figure(10.5, 4.2)
    left, right = figure.subplots(1, 2)
    for schedule in _SCHEDULES:
        _schedule(left, schedule, predicted, [row for row in tested if row.schedule == schedule])
    left.set_xscale("log", base=2)
    left.set_title("cost of parallel generation")
    for row in predicted:
        if row.k in {dot.k for dot in tested}:
            place = [(step + 0.5) / row.k for step in range(row.k)]
            right.plot(place, row.optimal_sizes, "o-", ms=3, label=f"K = {row.k}")
    right.set_title("the best sets")
    for panel, base in ((left, 10), (right, 2)):
        panel.set_yscale("log", base=base)
        for numbers in (panel.xaxis, panel.yaxis):
            numbers.set_major_formatter(lambda value, _: f"{value:g}")
            numbers.set_minor_formatter("")
    _style(left, "sets K", "nats/image above one token at a time")
    _style(right, "share of the steps done", "tokens in the set")
    figure.suptitle(title, fontsize=10)
    return figure


def _schedule(panel: Axes, schedule: str, predicted: Sequence[Predicted], tested: Sequence[Tested]) -> None:
    """One schedule; the logarithmic axis leaves out an excess of zero."""
    colour, aside = _SCHEDULES[schedule], _ASIDE[schedule]
    points = [(row.k, row.excess_nats[schedule]) for row in predicted if row.excess_nats[schedule] > 0.0]
    panel.plot([k for k, _ in points], [nats for _, nats in points], color=colour, label=f"{schedule}, predicted")
    spread = [
        [row.excess_nats - row.interval_nats[0] for row in tested],
        [row.interval_nats[1] - row.excess_nats for row in tested],
    ]
    panel.errorbar(
        [aside * row.k for row in tested], [row.excess_nats for row in tested], spread,
        fmt="o", ms=4, color=colour, capsize=2, label=f"{schedule}, test",
    )  # fmt: skip


def sweep(summary: dict[str, Any]) -> Figure:
    """FID over the first axis of a sweep, a line for every setting and value of the other axes; ``summary`` as
    ``mar.metrics.generated.sweep`` writes it."""
    axes, figure = summary["axes"], new_figure(7.0, 4.4)
    panel, (x, *others) = figure.subplots(), axes
    for one in summary["sweeps"]:
        for values in product(*(axes[key] for key in others)):
            fixed = dict(zip(others, values, strict=True))
            line = [point for point in one["points"] if all(point[key] == value for key, value in fixed.items())]
            name = " ".join([one["setting"], *(f"{key}={value}" for key, value in fixed.items())])
            numbers = all(isinstance(value, int | float) for value in axes[x])
            place = [point[x] if numbers else str(point[x]) for point in line]
            panel.plot(place, [point["fid"] for point in line], marker=".", linewidth=1.2, label=name)
    if floor := summary["sweeps"][0]["points"][0]["noise_floor"]:
        panel.axhline(floor, color="grey", linewidth=0.8, linestyle=":", label="real images")
    panel.set_title(f"{summary['n_images']} images a point", fontsize=10)
    _style(panel, x, "FID")
    return figure


def matrix(table: Table[dict[str, Row]]) -> Figure:
    """A heat map of a pivot with its texts; the marked cells, each run's own plan, are framed."""
    from matplotlib.patches import Rectangle

    names, *columns = table.columns
    means = np.array([[column.value(row) for column in columns] for row in table.rows])
    figure = new_figure(2.6 + 1.5 * len(columns), 1.8 + 0.75 * len(means))
    panel = figure.subplots()
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


def _style(panel: Axes, x: str, y: str, ylim: tuple[float, float] | None = None) -> None:
    """Labels, ticks, grid and legend as all plots have them."""
    panel.set_xlabel(x, fontsize=8)
    panel.set_ylabel(y, fontsize=8)
    panel.tick_params(labelsize=7)
    panel.grid(alpha=0.25, linewidth=0.5)
    if ylim is not None:
        panel.set_ylim(*ylim)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=7, frameon=False)

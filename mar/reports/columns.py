"""Columns of a grid's tables: settings, one group a metric, the model, published figures, problems.

Printed columns carry units, errors and intervals. The CSV's data columns hold raw numbers at full precision, with the
unit in the name.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from mar.core.table import Column, p_text, plus_minus, with_interval
from mar.experiments.grid import OURS, PLAN, Published, published_of
from mar.experiments.result import AblationResult, Row, TrainedModel, sparkline
from mar.experiments.statistics import published_figure
from mar.metrics import METRICS
from mar.metrics.base import Metric
from mar.metrics.speed import Speed
from mar.metrics.statistics import kind_of

RECALLED = "†"

# Data columns: name -> the field of a row; a missing part of the path is a missing value.
_NLL = {
    "nll_kind": "likelihood.kind",
    "nll_images": "likelihood.n_images",
    "nll_nats_per_image": "likelihood.nats_per_image",
    "nll_nats_per_image_standard_error": "likelihood.standard_error_nats",
    "nll_bits_per_dim": "likelihood.bits_per_dim",
    "nll_bits_per_dim_standard_error": "likelihood.standard_error_bits_per_dim",
    "difference_reference": "difference.reference",
    "difference_nats_per_image": "difference.nats_per_image",
    "difference_nats_per_image_low": "difference.interval_nats.0",
    "difference_nats_per_image_high": "difference.interval_nats.1",
    "difference_bits_per_dim": "difference.bits_per_dim",
    "difference_bits_per_dim_low": "difference.interval_bits_per_dim.0",
    "difference_bits_per_dim_high": "difference.interval_bits_per_dim.1",
    "difference_confidence": "difference.confidence",
    "difference_p_value": "difference.p_value",
    "difference_p_holm": "difference.p_holm",
}
_IMAGES = {
    "images": "images.generated.n_images",
    "fid": "images.fid",
    "fid_noise_floor": "images.noise_floor_fid",
    "kid_mean": "images.generated.kid_mean",
    "kid_std": "images.generated.kid_std",
    "inception_score_mean": "images.generated.inception_score_mean",
    "inception_score_std": "images.generated.inception_score_std",
    "precision": "images.generated.precision",
    "recall": "images.generated.recall",
    "nll_seconds": "nll_seconds",
    "sampling_seconds": "sampling_seconds",
    "images_per_second": "images_per_second",
}
_PROBE = {
    "probe_accuracy": "probe.accuracy",
    "probe_standard_error": "probe.standard_error",
    "probe_features": "probe.width",
}
_MODEL = {
    "recipe": "fingerprint",
    "weights": "weights",
    "parameters": "parameters",
    "iterations": "training.iterations",
    "iterations_scored": "training.scored",
    "training_seconds": "training.seconds",
    "validation_best_nats_per_token": "training.lowest_nats",
    "validation_curve": "training.verdict",
    **{name: f"speed.{name}" for name in Speed.__dataclass_fields__},
}


def columns(result: AblationResult) -> list[Column[Row]]:
    """Return the printed columns, empty ones included."""
    return [
        *_settings(result),
        Column("AR steps", lambda row: row.steps, drop=1),
        *_nll_columns(result),
        Column("FID", field("images.fid"), "lower", 2, alike=lambda row: row.fid_key),
        *([*_asked_for(result), *_model_columns(result)] if result.axes else _image_columns()),
        Column("linear probe", field("probe.accuracy"), "higher", 3, _probe, drop=1),
        *(_of_answer(name, column) for name, metric in _asked(result) for column in metric.columns()),
        *published_columns(result),
        Column("problem", lambda row: row.problem, words=True, drop=2),
    ]


def compact(result: AblationResult) -> list[Column[Row]]:
    """Return the columns for a terminal: no standard errors, intervals or costs."""
    several = result.axes or result.ways
    shown = _settings(result) if several else [Column[Row]("plan", lambda row: row.plan, words=True)]
    for column in columns(result):
        if column.title == "NLL" or column.title.startswith("Δ"):
            title = column.title.replace(f" to {result.reference}", "")
            shown.append(replace(column, title=title, text=None, sign=title == "Δ"))
        elif column.title in ("p (Holm)", "FID", "validation curve"):
            shown.append(column)
    return [*shown, *published_columns(result)]


def data_columns(result: AblationResult) -> list[Column[Row]]:
    """Return the columns of the CSV."""
    return [
        Column("plan", lambda row: row.plan),
        *(Column[Row](f"axis_{s}", lambda row, s=s: row.settings.get(s)) for s in result.settings if s != PLAN),
        Column("ordering", lambda row: row.ordering),
        Column("partition", lambda row: row.partition),
        Column("ar_steps", lambda row: row.steps),
        *(Column[Row](name, field(path)) for name, path in (_NLL | _IMAGES | _PROBE).items()),
        *(Column[Row](name, _of_model(result, path)) for name, path in _MODEL.items()),
        *(_of_answer(name, column) for name, metric in _asked(result) for column in metric.data_columns()),
        *published_columns(result, data=True),
        Column("refused", lambda row: row.refused or None),
        Column("errors", lambda row: "; ".join(row.errors) or None),
    ]


def published_columns(result: AblationResult, data: bool = False) -> list[Column[Any]]:
    """Return a column for each published column of the grid, for rows and for rows over seeds."""
    return [_published(column, data) for column in published_of(result.grid)]


def has_bits(result: AblationResult) -> bool:
    """True if a row has bits/dim: tables then show bits/dim, and otherwise nats."""
    return any(row.likelihood is not None and row.likelihood.bits_per_dim is not None for row in result.rows)


def in_asked_unit(result: AblationResult) -> AblationResult:
    """Return the result to show: without bits/dim if the grid asks for nats an example. Stored results keep both."""
    if result.grid.get("unit") != "nats":
        return result
    rows, baselines = (tuple(map(_without_bits, rows)) for rows in (result.rows, result.baselines))
    return replace(result, rows=rows, baselines=baselines)


def nll_alike(result: AblationResult) -> Callable[[Row], Hashable]:
    """Return the key of rows whose NLL compare: data, images, kind; for latents also the tokenizer."""
    recipes, keys = {model.name: model.recipe for model in result.models}, {}
    for row in result.rows:
        likelihood, recipe = row.likelihood, recipes.get(row.model, {})
        if likelihood is not None:
            latents = str(recipe.get("tokenizer")) if likelihood.bits_per_dim is None else ""
            keys[id(row)] = str(recipe.get("data")), likelihood.n_images, kind_of(likelihood), latents
    return lambda row: keys.get(id(row))


def field(path: str) -> Callable[[Any], Any]:
    """Return the function that reads "a.b.0" of a row; None where a part is None."""
    *parts, last = path.split(".")
    if not parts:
        return lambda row: None if row is None else row[int(last)] if last.isdecimal() else getattr(row, last)
    before, after = field(".".join(parts)), field(last)
    return lambda row: after(before(row))


def _settings(result: AblationResult) -> list[Column[Row]]:
    """The values on the axes, and the parts of the plan that these do not name."""
    names = [name for name in result.settings if name != PLAN]
    shown = [Column[Row](name, lambda row, name=name: row.settings.get(name), words=True) for name in names]
    plans = [Column[Row](p, lambda row, p=p: getattr(row, p), words=True) for p in ("ordering", "partition")]
    if result.axes:  # the notes name a part that never changes
        plans = [c for c in plans if c.title not in names and len({c.value(row) for row in result.rows}) > 1]
    if shown:  # a baseline has no settings, but a name
        shown[0] = replace(shown[0], value=lambda row: row.settings.get(names[0], row.plan))
    return [*shown, *plans]


def _nll_columns(result: AblationResult) -> list[Column[Row]]:
    bits = has_bits(result)
    unit, digits = ("bits/dim", 4) if bits else ("nats", 2)
    figure, error, difference, interval = (
        field(f"likelihood.{'bits_per_dim' if bits else 'nats_per_image'}"),
        field(f"likelihood.standard_error_{'bits_per_dim' if bits else 'nats'}"),
        field(f"difference.{'bits_per_dim' if bits else 'nats_per_image'}"),
        field(f"difference.interval_{'bits_per_dim' if bits else 'nats'}"),
    )
    p_holm, alike = field("difference.p_holm"), nll_alike(result)
    return [
        Column(
            "NLL", figure, "lower", digits, lambda row: plus_minus(figure(row), error(row), digits), unit,
            alike=alike,
        ),
        Column(
            f"Δ to {result.reference}", difference, "lower", digits,
            lambda row: with_interval(difference(row), interval(row), digits), unit, alike=alike,
        ),
        Column("p (Holm)", p_holm, text=lambda row: p_text(p_holm(row))),
    ]  # fmt: skip


def _image_columns() -> list[Column[Row]]:
    """Scores beside the FID. Tables of many columns leave them to the CSV."""
    return [
        Column("KID", field("images.generated.kid_mean"), "lower", 4, alike=lambda row: row.fid_key),
        Column("IS", field("images.generated.inception_score_mean"), "higher", 2, alike=lambda row: row.fid_key),
        Column("precision", field("images.generated.precision"), "higher", 3, alike=lambda row: row.fid_key),
        Column("recall", field("images.generated.recall"), "higher", 3, alike=lambda row: row.fid_key),
        Column("images/s", lambda row: row.images_per_second, "higher", 1),
    ]


def _asked_for(result: AblationResult) -> list[Column[Row]]:
    """The IS if a published column is compared with it; the speed if the rows of a model differ in it."""
    asked = {OURS["inception_score"][0]} & {OURS[column.of][0] for column in published_of(result.grid)}
    return [column for column in _image_columns() if column.title in asked | ({"images/s"} if result.ways else set())]


def _model_columns(result: AblationResult) -> list[Column[Row]]:
    parameters, iterations = _of_model(result, "parameters"), _of_model(result, "training.iterations")
    scored, training = _of_model(result, "training.scored"), _of_model(result, "training")

    def flops(name: str) -> Callable[[Row], float | None]:
        of = _of_model(result, f"speed.{name}_flops_per_image")
        return lambda row: None if of(row) is None else of(row) / 1e6

    def rate(name: str) -> Callable[[Row], float | None]:
        return _of_model(result, f"speed.{name}_images_per_second")

    return [
        Column("parameters", parameters, text=lambda row: f"{parameters(row):,}"),
        Column("training, MFLOP/image", flops("train"), "lower", 1),
        Column("generation, MFLOP/image", flops("sample"), "lower", 1),
        Column("training, images/s", rate("train"), "higher", 1),
        Column("generation, images/s", rate("sample"), "higher", 1),
        Column(
            "iterations", iterations,
            text=lambda row: " of ".join(f"{n}" for n in dict.fromkeys((scored(row), iterations(row)))),
        ),
        Column(
            "validation curve", _of_model(result, "training.verdict"), words=True,
            text=lambda row: f"{sparkline(training(row).validation_nats)} {training(row).verdict}",
        ),
    ]  # fmt: skip


def _published(column: Published, data: bool) -> Column[Any]:
    """Printed with the decimals of its most precise figure, and a dagger where it is written down from memory."""
    figure = lambda row: published_figure(column, row)  # noqa: E731
    if data:
        return Column(f"published: {column.title}{' (recalled)' if column.recalled else ''}", figure)
    exponents = [Decimal(repr(row.value)).normalize().as_tuple().exponent for row in column.rows]
    digits = max(0, *(-exponent for exponent in exponents if isinstance(exponent, int)))
    dagger = RECALLED if column.recalled else ""
    title = f"published: {column.title}"
    return Column(title, figure, column.direction, digits, lambda row: f"{figure(row):.{digits}f}{dagger}")


def _of_model(result: AblationResult, path: str) -> Callable[[Row], Any]:
    """Return the function that reads a field of a row's model; None for baselines and refused models."""
    models: Mapping[str, TrainedModel] = {model.name: model for model in result.models}
    read = field(path)
    if path in ("parameters", "weights"):
        return lambda row: read(models.get(row.model)) or None
    return lambda row: read(models.get(row.model))


def _asked(result: AblationResult) -> list[tuple[str, type[Metric]]]:
    """The metrics without a group of columns above, of which a row has an answer."""
    others = [
        (name, metric) for name, metric in METRICS.items() if name not in ("nll", "fid", "sets", "probe", "speed")
    ]
    return [(name, metric) for name, metric in others if any(name in row.answers for row in result.rows)]


def _of_answer(name: str, column: Column[Any]) -> Column[Row]:
    """A column of a metric's answers as a column of rows."""
    text = column.text

    def of(read: Callable[[Any], Any]) -> Callable[[Row], Any]:
        return lambda row: read(row.answers[name]) if row.answers.get(name) is not None else None

    return replace(column, value=of(column.value), text=None if text is None else of(text))


def _probe(row: Row) -> str:
    assert row.probe is not None
    return f"{row.probe.accuracy:.3f} ({row.probe.width} features)"


def _without_bits(row: Row) -> Row:
    answers, difference = dict(row.answers), row.difference
    if row.likelihood is not None:
        answers["nll"] = replace(row.likelihood, bits_per_dim=None, standard_error_bits_per_dim=None)
    if difference is not None:
        difference = replace(difference, bits_per_dim=None, interval_bits_per_dim=None)
    return replace(row, answers=answers, difference=difference)

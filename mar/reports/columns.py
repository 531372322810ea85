"""Columns of a grid's tables: settings, those of each metric, differences, the model, published figures, problems.

Printed columns carry units, errors and intervals. The CSV's data columns hold raw numbers at full precision, with the
unit in the name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from mar.core.table import Column, field, fields, of_rows, p_text, with_interval
from mar.experiments.grid import OURS, PLAN, Published, published_of
from mar.experiments.result import AblationResult, Row, TrainedModel, sparkline
from mar.experiments.statistics import published_figure
from mar.metrics import METRICS
from mar.metrics.nll import NLL

RECALLED = "†"
_ALWAYS = {"nll", "fid", "probe", "speed"}  # their columns stand in every CSV; of other metrics if a row has an answer
_TERMINAL = {"NLL": 0, "Δ": 1, "FID": 1, "validation curve": 2, "p (Holm)": 3}  # columns there: when they are dropped

_DIFFERENCE = fields(
    difference_reference="difference.reference",
    difference_nats_per_image="difference.nats_per_image",
    difference_nats_per_image_low="difference.interval_nats.0",
    difference_nats_per_image_high="difference.interval_nats.1",
    difference_bits_per_dim="difference.bits_per_dim",
    difference_bits_per_dim_low="difference.interval_bits_per_dim.0",
    difference_bits_per_dim_high="difference.interval_bits_per_dim.1",
    difference_confidence="difference.confidence",
    difference_p_value="difference.p_value",
    difference_p_holm="difference.p_holm",
)
_MODEL = [
    Column[TrainedModel]("recipe", lambda model: model.fingerprint),
    Column[TrainedModel]("weights", lambda model: model.weights or None),
    Column[TrainedModel]("parameters", lambda model: model.parameters or None),
    *fields(
        iterations="training.iterations",
        iterations_scored="training.scored",
        training_seconds="training.seconds",
        validation_best_nats_per_token="training.lowest_nats",
        validation_curve="training.verdict",
    ),
]


@lru_cache(maxsize=4)
def columns(result: AblationResult) -> list[Column[Row]]:
    """Return the printed columns, empty ones included.

    Tables of several models leave details (``Column.drop`` of 2) to the CSV, unless a published column is compared with
    them or the rows of a model differ in speed; they alone show the models' columns.
    """
    asked = {OURS[column.of][0] for column in published_of(result.grid)} | ({"images/s"} if result.ways else set())
    shown = [*_settings(result), Column[Row]("AR steps", lambda row: row.steps, drop=1)]
    for name, metric in METRICS.items():
        if result.axes or not metric.alone:
            own = metric_columns(result, name)
            shown += [column for column in own if not result.axes or column.drop < 2 or column.title in asked]
            if metric is NLL:
                shown += _differences(result, own[0])
    problem = Column[Row]("problem", lambda row: row.problem, words=True, drop=2)
    return [*shown, *(_model_columns(result) if result.axes else []), *published_columns(result), problem]


def compact(result: AblationResult) -> list[Column[Row]]:
    """Return the columns for a terminal, without costs; a narrow one omits errors and intervals, then drops columns."""
    several = result.axes or result.ways
    shown = _settings(result) if several else [Column[Row]("plan", lambda row: row.plan, words=True)]
    for column in columns(result):
        title = column.title.replace(f" to {result.reference}", "")
        if title in _TERMINAL:
            shown.append(replace(column, title=title, brief=title in ("NLL", "Δ"), drop=_TERMINAL[title]))
    return [*shown, *(replace(column, drop=4) for column in published_columns(result))]


def data_columns(result: AblationResult) -> list[Column[Row]]:
    """Return the columns of the CSV."""
    answered = {name for one in (*result.rows, *result.models) for name in one.answers}
    metrics = [name for name in METRICS if name in _ALWAYS | answered]
    return [
        Column("plan", lambda row: row.plan),
        *(Column[Row](f"axis_{s}", lambda row, s=s: row.settings.get(s)) for s in result.settings if s != PLAN),
        Column("ordering", lambda row: row.ordering),
        Column("partition", lambda row: row.partition),
        Column("ar_steps", lambda row: row.steps),
        *(column for name in metrics for column in metric_columns(result, name, data=True)),
        Column("nll_seconds", lambda row: row.seconds.get("nll")),
        *_DIFFERENCE,
        *of_rows(_MODEL, _model(result)),
        *published_columns(result, data=True),
        Column("refused", lambda row: row.refused or None),
        Column("errors", lambda row: "; ".join(row.errors) or None),
    ]


def metric_columns(result: AblationResult, name: str, data: bool = False) -> list[Column[Row]]:
    """Return the columns of a metric's answers as columns of rows; rows compete as the metric says."""
    metric, model_of = METRICS[name], _model(result)

    holder = model_of if metric.alone else lambda row: row
    answer = lambda row: None if (held := holder(row)) is None else held.answers.get(name)  # noqa: E731
    kinds = {
        id(row): id(row)  # alone: it competes with no row
        if row.unsound
        else metric.alike(answer(row), {} if (model := model_of(row)) is None else model.recipe)
        for row in result.rows
        if answer(row) is not None
    }

    answers = [found for row in result.rows if (found := answer(row)) is not None]
    own = metric.data_columns() if data else metric.columns(answers)
    return [replace(column, alike=lambda row: kinds.get(id(row))) for column in of_rows(own, answer)]


@lru_cache(maxsize=8)
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

    def shown(row: Row) -> Row:
        answers, difference = dict(row.answers), row.difference
        if row.likelihood is not None:
            answers["nll"] = replace(row.likelihood, bits_per_dim=None, standard_error_bits_per_dim=None)
        if difference is not None:
            difference = replace(difference, bits_per_dim=None, interval_bits_per_dim=None)
        return replace(row, answers=answers, difference=difference)

    return replace(result, rows=tuple(map(shown, result.rows)), baselines=tuple(map(shown, result.baselines)))


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


def _differences(result: AblationResult, likelihood: Column[Row]) -> list[Column[Row]]:
    """The paired difference in NLL and its p-value; differences to one reference compete, as the likelihoods do."""
    unit, figure, interval, digits = "nats", "nats_per_image", "interval_nats", 2
    if has_bits(result):
        unit, figure, interval, digits = "bits/dim", "bits_per_dim", "interval_bits_per_dim", 4
    mean, ends, p_holm = (field(f"difference.{name}") for name in (figure, interval, "p_holm"))
    scored_alike = likelihood.alike or (lambda row: None)
    bases = {row.name: frozenset(row.seedless.items()) for row in result.rows}
    text = lambda row: with_interval(mean(row), ends(row), digits)  # noqa: E731
    delta = Column(f"Δ to {result.reference}", mean, "lower", digits, text, unit, True)
    return [
        replace(delta, alike=lambda row: row.difference and (scored_alike(row), bases.get(row.difference.reference))),
        Column("p (Holm)", p_holm, text=lambda row: p_text(p_holm(row))),
    ]


def _model_columns(result: AblationResult) -> list[Column[Row]]:
    def iterations(model: TrainedModel) -> str:
        assert model.training is not None
        return " of ".join(f"{n}" for n in dict.fromkeys((model.training.scored, model.training.iterations)))

    def curve(model: TrainedModel) -> str:
        assert model.training is not None
        return f"{sparkline(model.training.validation_nats)} {model.training.verdict}"

    own: list[Column[TrainedModel]] = [
        Column("parameters", lambda model: model.parameters or None, text=lambda model: f"{model.parameters:,}"),
        Column("iterations", field("training.iterations"), text=iterations),
        Column("validation curve", field("training.verdict"), text=curve, words=True),
    ]
    return of_rows([each for each in own if each.title not in result.axes], _model(result))


def _model(result: AblationResult) -> Callable[[Row], TrainedModel | None]:
    """Return the function that finds a row's model; None for baselines."""
    models = {model.name: model for model in result.models}
    return lambda row: models.get(row.model)


def _published(column: Published, data: bool) -> Column[Any]:
    """Printed with the decimals of its most precise figure, and a dagger where it is written down from memory."""
    figure = lambda row: published_figure(column, row)  # noqa: E731
    if data:
        return Column(f"published: {column.title}{' (recalled)' if column.recalled else ''}", figure)
    exponents = [Decimal(repr(row.value)).normalize().as_tuple().exponent for row in column.rows]
    digits = max(0, *(-exponent for exponent in exponents if isinstance(exponent, int)))
    dagger = RECALLED if column.recalled else ""
    title = f"published: {column.title}"
    text = lambda row: f"{figure(row):.{digits}f}{dagger}"  # noqa: E731
    return Column(title, figure, column.direction, digits, text, mark=lambda row: False)  # others' numbers: never bold

"""The columns that say what a row's model is and costs: the same for every plan of one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mar.experiments.result import AblationResult, Row, TrainedModel, sparkline
from mar.metrics.speed import Speed
from mar.reports.column import Column


def model_columns(result: AblationResult) -> list[Column]:
    """What is read."""
    model_of = _lookup(result)

    def curve(row: Row) -> str:
        training = model_of(row, lambda model: model.training)
        return f"{sparkline(training.validation_nats)} {training.verdict}"

    return [
        Column("parameters", lambda row: model_of(row, lambda m: m.parameters or None), text=_thousands(model_of)),
        Column("training, MFLOP/image", _of_speed(model_of, lambda s: s.train_flops_per_image / 1e6), "lower", 1),
        Column("generation, MFLOP/image", _of_speed(model_of, lambda s: s.sample_flops_per_image / 1e6), "lower", 1),
        Column("training, images/s", _of_speed(model_of, lambda s: s.train_images_per_second), "higher", 1),
        Column("generation, images/s", _of_speed(model_of, lambda s: s.sample_images_per_second), "higher", 1),
        Column("iterations", lambda row: model_of(row, _length), text=lambda row: model_of(row, _scored)),
        Column("validation curve", lambda row: model_of(row, _verdict), text=curve, words=True),
    ]


def model_data_columns(result: AblationResult) -> list[Column]:
    """What is computed with."""
    model_of = _lookup(result)
    speeds = [
        Column(name, _of_speed(model_of, lambda s, name=name: getattr(s, name)))
        for name in Speed.__dataclass_fields__  # a column each, in their order
    ]
    return [
        Column("recipe", lambda row: model_of(row, lambda m: m.fingerprint)),
        Column("weights", lambda row: model_of(row, lambda m: m.weights or None)),
        Column("parameters", lambda row: model_of(row, lambda m: m.parameters or None)),
        Column("iterations", lambda row: model_of(row, _length)),
        Column("iterations_scored", lambda row: model_of(row, lambda m: m.training and m.training.scored)),
        Column("training_seconds", lambda row: model_of(row, lambda m: m.training and m.training.seconds)),
        Column("validation_best_nats_per_token", lambda row: model_of(row, _lowest)),
        Column("validation_curve", lambda row: model_of(row, _verdict)),
        *speeds,
    ]


Lookup = Callable[[Row, Callable[[TrainedModel], Any]], Any]


def _lookup(result: AblationResult) -> Lookup:
    """Of a row and a question to its model, the answer; None of a baseline."""
    models = {model.name: model for model in result.models}

    def ask(row: Row, question: Callable[[TrainedModel], Any]) -> Any:
        model = models.get(row.model)
        return None if model is None else question(model)

    return ask


def _of_speed(model_of: Lookup, question: Callable[[Speed], Any]) -> Callable[[Row], Any]:
    return lambda row: model_of(row, lambda model: model.speed and question(model.speed))


def _thousands(model_of: Lookup) -> Callable[[Row], str]:
    return lambda row: f"{model_of(row, lambda model: model.parameters):,}"


def _length(model: TrainedModel) -> int | None:
    return model.training and model.training.iterations


def _scored(model: TrainedModel) -> str:
    assert model.training is not None
    scored, whole = model.training.scored, model.training.iterations
    return f"{whole}" if scored == whole else f"{scored} of {whole}"


def _verdict(model: TrainedModel) -> str | None:
    return model.training and model.training.verdict


def _lowest(model: TrainedModel) -> float | None:
    return None if model.training is None else min(model.training.validation_nats, default=None)

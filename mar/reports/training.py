"""The part of the page that shows how the models were trained."""

from __future__ import annotations

from html import escape

from mar.ablation.curve import MEANINGS
from mar.ablation.result import AblationResult, TrainedModel, Training
from mar.reports.curves import value_range
from mar.reports.svg import Chart, Line

_SHARED = "validation-curves"


def training(result: AblationResult) -> str:
    """The curves: of one model its losses; of several the validation loss of each before those of all (HTML)."""
    trained = [model for model in result.models if model.training is not None]
    curves = [model.training for model in trained if model.training is not None]
    if not any(curve.loss_nats for curve in curves):
        return "<p>No curve was logged.</p>"
    if not result.axes:
        return _one(curves[0])
    longest = max(curve.iterations * curve.batch_size for curve in curves)
    chart = Chart("images seen", "validation, nats per token", (0, longest), value_range(trained))
    shared = chart.group(
        [_validation(model, curve, "ghost") for model, curve in zip(trained, curves, strict=True)], _SHARED
    )
    figures = "".join(_several(chart, model, curve) for model, curve in zip(trained, curves, strict=True))
    return f'{shared}<div class="curves">{figures}</div>'


def _several(chart: Chart, model: TrainedModel, curve: Training) -> str:
    drawn = chart.svg([_validation(model, curve, "own")], f"Validation curve, {model.name}", _SHARED)
    scored = f"scored after {curve.scored} of {curve.iterations} iterations of {curve.batch_size}"
    said = f'<span title="{escape(MEANINGS[curve.verdict])}">{curve.verdict}</span>'
    return f"<figure>{drawn}<figcaption><b>{escape(model.name)}</b>: {said}, {scored}</figcaption></figure>"


def _validation(model: TrainedModel, curve: Training, style: str) -> Line:
    seen = [iteration * curve.batch_size for iteration in curve.validation_iteration]
    return Line(seen, curve.validation_nats, style, model.name)


def _one(t: Training) -> str:
    lines = [Line(t.loss_iteration, t.loss_nats, "own", "training loss")]
    if t.validation_nats:
        lines.append(Line(t.validation_iteration, t.validation_nats, "second", "validation loss, averaged weights"))
    seen = sorted(value for line in lines for value in line.y)
    top = seen[int(0.97 * (len(seen) - 1))]  # the first iterations would flatten all the rest
    margin = 0.08 * ((top - seen[0]) or 1.0)
    chart = Chart("iteration", "loss, nats per token", (0, t.iterations), (seen[0] - margin, top + margin), 640, 240)
    return (
        f'<figure class="wide">{chart.svg(lines, "Training curve")}<figcaption><i class="key"></i>training '
        '<i class="key warm"></i>validation, averaged weights</figcaption></figure>'
    )

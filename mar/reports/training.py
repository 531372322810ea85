"""The part of the page that shows how the models were trained."""

from __future__ import annotations

from html import escape

from mar.experiments.result import MEANINGS, AblationResult, TrainedModel, Training
from mar.reports.curves import groups, value_range
from mar.reports.svg import Chart, Line

_SHARED = "validation-curves"
_HUES = 6  # of the style sheet


def training(result: AblationResult) -> str:
    """The curves: of one model its losses; of several their validation losses, a chart for each value of the first
    axis, before those of all (HTML)."""
    trained = [model for model in result.models if model.training is not None]
    if not result.axes and trained and trained[0].training is not None and trained[0].training.loss_nats:
        return _one(trained[0].training)
    found = groups(result) if result.axes else {}
    if not found:
        return "<p>No curve was logged.</p>"
    longest = max(curve.iterations * curve.batch_size for _, curve in _curves(trained))
    chart = Chart("images seen", "validation, nats per token", (0, longest), value_range(trained))
    shared = chart.group([_validation(model, curve, "ghost") for model, curve in _curves(trained)], _SHARED)
    figures = "".join(_several(result, chart, name, models) for name, models in found.items())
    return f'{shared}<div class="curves">{figures}</div>'


def _several(result: AblationResult, chart: Chart, name: str, models: list[TrainedModel]) -> str:
    """The curves of one value of the first axis, each in its colour, with a dot at the weights that are scored."""
    lines, dots, said = [], [], []
    for number, (model, curve) in enumerate(_curves(models)):
        style = f"hue{number % _HUES}"
        lines.append(_validation(model, curve, style))
        if curve.scored in curve.validation_iteration:
            nats = curve.validation_nats[curve.validation_iteration.index(curve.scored)]
            x, y = chart.place(curve.scored * curve.batch_size, nats)
            dots.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        said.append(
            f'<li><i class="key {style}"></i>{escape(", ".join(list(model.settings.values())[1:]))} '
            f'<span title="{escape(MEANINGS[curve.verdict])}">{curve.verdict}</span>, '
            f"scored after {curve.scored:,} of {curve.iterations:,}</li>"
        )
    drawn = chart.svg(lines, f"Validation curves, {name}", _SHARED, "".join(dots))
    names = {model.name for model in models}
    numbers = " ".join(str(number) for number, row in enumerate(result.rows) if row.model in names)
    legend = f'<figcaption><b>{escape(name)}</b><ul class="legend">{"".join(said)}</ul></figcaption>'
    return f'<figure data-rows="{numbers}">{drawn}{legend}</figure>'


def _curves(models: list[TrainedModel]) -> list[tuple[TrainedModel, Training]]:
    return [(model, model.training) for model in models if model.training is not None]


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

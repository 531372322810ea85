"""The learning curves of an ablation as one picture."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from mar.experiments.grid import SEED
from mar.experiments.result import AblationResult, TrainedModel

_COLUMNS = 4


def groups(result: AblationResult) -> dict[str, list[TrainedModel]]:
    """The trained models by their value on the first axis; one group where there are no axes."""
    found: dict[str, list[TrainedModel]] = {}
    for model in result.models:
        if model.training is not None and model.training.validation_nats:
            found.setdefault(next(iter(model.settings.values()), model.name), []).append(model)
    return found


def write_curves(result: AblationResult, folder: Path) -> Path:
    """``learning-curves.png``: validation loss in bits per token against images seen, a panel for each value of the
    first axis; a dot marks the weights that are scored. Returns its path."""
    from matplotlib.figure import Figure

    found = groups(result)
    columns = min(_COLUMNS, max(1, len(found)))
    rows = math.ceil(max(1, len(found)) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    low, high = value_range([model for models in found.values() for model in models])
    for panel, (name, models) in zip(axes.flat, found.items(), strict=False):
        _panel(panel, name, models)
        panel.set_ylim(low / math.log(2.0), high / math.log(2.0))
    for panel in list(axes.flat)[len(found) :]:
        panel.set_axis_off()
    figure.supxlabel("images seen in training", fontsize=9)
    figure.supylabel("validation, bits per token", fontsize=9)
    path = folder / "learning-curves.png"
    figure.savefig(path, dpi=150)
    return path


def legend(models: list[TrainedModel]) -> dict[str, list[TrainedModel]]:
    """The models of a panel by what they are called there, all seeds of a setting together, with their verdicts."""
    by_setting: dict[str, list[TrainedModel]] = {}
    for model in models:
        settings = {axis: value for axis, value in list(model.settings.items())[1:] if axis != SEED}
        by_setting.setdefault(", ".join(settings.values()), []).append(model)
    found = {}
    for name, alike in by_setting.items():
        count = Counter(model.training.verdict for model in alike if model.training is not None)
        several = len(alike) > 1
        verdicts = ", ".join(f"{n} {verdict}" if several else verdict for verdict, n in count.items())
        found[f"{name} ({verdicts})" if name else verdicts] = alike
    return found


def _panel(panel: Any, name: str, models: list[TrainedModel]) -> None:
    for number, (label, alike) in enumerate(legend(models).items()):
        for model in alike:
            training = model.training
            assert training is not None
            x = [iteration * training.batch_size for iteration in training.validation_iteration]
            y = [nats / math.log(2.0) for nats in training.validation_nats]
            panel.plot(x, y, linewidth=1.2, color=f"C{number % 10}", label=label if model is alike[0] else None)
            if training.scored in training.validation_iteration:
                place = training.validation_iteration.index(training.scored)
                panel.plot(x[place], y[place], "o", markersize=4, color=f"C{number % 10}")
    panel.set_title(name, fontsize=9)
    panel.legend(fontsize=7, frameon=False)
    panel.tick_params(labelsize=7)
    panel.grid(alpha=0.25, linewidth=0.5)


def value_range(models: list[TrainedModel]) -> tuple[float, float]:
    """What a picture of validation curves shows, in nats: from the lowest value to a fifth above what nine models in
    ten reach. A curve that overfits, or a model that learns little, leaves it at the top."""
    curves = [model.training.validation_nats for model in models if model.training is not None]
    lowest = sorted(min(curve) for curve in curves if curve)
    if not lowest:
        return 0.0, 1.0
    high = lowest[int(0.9 * (len(lowest) - 1))]
    high += 0.2 * abs(high)
    return lowest[0] - 0.05 * (high - lowest[0]), high

"""Learning curves of a result: which share a panel and an entry of its legend, and where they cross the reference's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mar.experiments.grid import SEED, phrase, setting
from mar.experiments.result import AblationResult, TrainedModel


def groups(result: AblationResult) -> dict[str, list[TrainedModel]]:
    """Return the trained models by their value on one axis, the first that keeps losses of different heads apart; one
    group without axes."""
    models = [m for m in result.models if m.training and (m.training.validation_nats or m.training.loss_nats)]
    found: dict[str, list[TrainedModel]] = {}
    for axis in (*[axis for axis in result.axes if axis != SEED], *result.axes[:1], ""):
        found = {}
        for model in models:
            found.setdefault(setting(axis, model.settings[axis]) if axis else model.name, []).append(model)
        if all(len({head_of(model) for model in alike}) == 1 for alike in found.values()):
            return found
    return found


def head_of(model: TrainedModel) -> str:
    """Return the kind of a model's head; losses of several kinds do not compare."""
    return model.recipe.get("head", {}).get("kind", "")


def entries(models: list[TrainedModel]) -> dict[str, list[TrainedModel]]:
    """Return the entries of a panel's legend: the seeds of one setting together, by its name."""
    told = [axis for axis in models[0].settings if axis != SEED and len({m.settings[axis] for m in models}) > 1]
    by_setting: dict[str, list[TrainedModel]] = {}
    for model in models:
        by_setting.setdefault(phrase({axis: model.settings[axis] for axis in told}), []).append(model)
    return by_setting


def label(name: str, alike: list[TrainedModel]) -> str:
    """Return an entry as the legend shows it: its name and the verdicts of its seeds."""
    count = Counter(model.training.verdict for model in alike if model.training is not None)
    verdicts = ", ".join(f"{n} {verdict}" if len(alike) > 1 else verdict for verdict, n in count.items())
    return f"{name} ({verdicts})" if name else verdicts


def moment(images: float, models: list[TrainedModel]) -> str:
    """Return a point of a training as "epoch 28", or as "38,400 images" where the size of the training set is unknown
    or differs."""
    sizes = {model.training.examples for model in models if model.training is not None}
    size = sizes.pop() if len(sizes) == 1 else 0
    return f"epoch {images / size:.0f}" if size else f"{images:,.0f} images"


def crossings(entries: dict[str, list[TrainedModel]], reference: Any) -> dict[str, float]:
    """Return the images seen from which on an entry's mean curve stays below the reference's, where it began above."""

    def mean(models: Sequence[TrainedModel]) -> dict[int, float]:
        found = [
            {at * t.batch_size: nats for at, nats in zip(t.validation_iteration, t.validation_nats, strict=True)}
            for model in models if (t := model.training) is not None
        ]  # fmt: skip
        shared = sorted(set.intersection(*map(set, found))) if found else []
        return {at: sum(each[at] for each in found) / len(found) for at in shared}

    asked = reference if isinstance(reference, dict) else {}
    base = [
        label for label, models in entries.items()
        if all(models[0].settings.get(axis, str(value)) == str(value) for axis, value in asked.items())
    ]  # fmt: skip
    if len(base) != 1 or len(entries) == 1:
        return {}
    found, origin = {}, mean(entries[base[0]])
    for label, models in entries.items():
        gap = [(at, value - origin[at]) for at, value in mean(models).items() if at in origin]
        above = [k for k, (_, difference) in enumerate(gap) if difference >= 0]
        if label != base[0] and above and above[-1] + 1 < len(gap):
            found[label] = gap[above[-1] + 1][0]
    return found

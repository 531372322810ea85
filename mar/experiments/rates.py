"""How fast each row of a table generates, all rows measured alike."""

from __future__ import annotations

from mar.experiments.result import AblationResult


def measured_alone(result: AblationResult) -> bool:
    """Whether the rows' speeds are those of their models: measured, and no model has two rows."""
    models = [row.model for row in result.rows]
    return len(set(models)) == len(models) and any(model.speed is not None for model in result.models)


def generation_rates(result: AblationResult) -> list[float | None]:
    """Generated images per second of each row: of its model, or of the images for its FID."""
    if not measured_alone(result):
        return [row.images_per_second for row in result.rows]
    speed_of = {model.name: model.speed for model in result.models}
    speeds = [speed_of.get(row.model) for row in result.rows]
    return [None if speed is None else speed.sample_images_per_second for speed in speeds]

"""What the cells of a grid have in common, and how exactly: a comparison is as fair as this spread is small."""

from __future__ import annotations

from dataclasses import dataclass

from mar.experiments.result import AblationResult, TrainedModel

FAIR = 0.1  # of the smallest: the widest spread of what is matched that needs no warning
QUANTITIES = {"parameters": "parameters", "images": "examples seen", "compute": "training FLOP"}


@dataclass(frozen=True)
class Spread:
    """The range of a quantity over trained cells."""

    low: float
    high: float

    @property
    def excess(self) -> float:
        """How much more the largest has, as a share of the smallest."""
        return (self.high - self.low) / self.low


def spreads(result: AblationResult) -> dict[str, Spread]:
    """parameters; images: examples seen in training; compute: its floating-point operations, where the speed of every
    cell was measured. Over the trained cells; none: nothing."""
    trained = [model for model in result.models if model.training is not None]
    found = {}
    for name in QUANTITIES:
        values = [quantity(model, name) for model in trained]
        numbers = [value for value in values if value]
        if numbers and len(numbers) == len(values):
            found[name] = Spread(min(numbers), max(numbers))
    return found


def quantity(model: TrainedModel, name: str) -> float | None:
    """Of a trained cell, one of ``QUANTITIES``; None: unknown."""
    if name == "parameters":
        return model.parameters
    if model.training is None:
        return None
    images = model.training.iterations * model.training.batch_size
    if name == "images":
        return images
    return None if model.speed is None else images * model.speed.train_flops_per_image


def unfair(result: AblationResult) -> bool:
    """Whether what the grid says is matched is not."""
    spread = spreads(result).get(result.grid.get("matched") or "")
    return spread is not None and spread.excess > FAIR

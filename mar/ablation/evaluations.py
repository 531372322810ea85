"""What is asked of each cell: the sections of a grid file that say how it is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mar.config import Section

SplitName = Literal["train", "validation", "test"]


class NllEvaluation(Section):
    """The likelihood of a split along each plan."""

    split: SplitName = "test"
    images: int | None = Field(default=None, ge=2, description="so many, spread over the split; None: all")
    seed: int = Field(default=0, ge=0, description="of random orders, dequantisation and the noise of bounds")


class FidEvaluation(Section):
    """Images generated along each plan, from the same noise and classes, against a split of real ones."""

    images: int = Field(default=1000, ge=8)
    split: SplitName = "test"
    guidance: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=1.0, ge=0)
    seed: int = Field(default=0, ge=0)
    shown: int = Field(default=40, ge=1, description="images in the picture of samples")
    animated: int = Field(default=12, ge=1, description="images in the animation")


class SpeedEvaluation(Section):
    """Training steps and generations along each model's own plan, one model at a time, nothing else at work."""

    batch: int = Field(default=64, ge=1, description="images at a time")
    seconds: float = Field(default=1.0, ge=0, description="of measuring a model, at least; three rounds at least")
    clock: Literal["wall", "cpu"] = Field(default="wall", description="cpu: for a machine busy with other things")


class ProbeEvaluation(Section):
    """A linear classifier of each model's features (``mar.evaluation.probe``)."""

    sets: int = Field(default=8, ge=1, description="passes of a network that needs one for each step")
    strength: float = Field(default=1.0, gt=0, description="inverse of the L2 penalty")
    seed: int = Field(default=0, ge=0, description="of random orders")


EVALUATIONS: dict[str, type[Section]] = {
    "nll": NllEvaluation,
    "fid": FidEvaluation,
    "speed": SpeedEvaluation,
    "probe": ProbeEvaluation,
}

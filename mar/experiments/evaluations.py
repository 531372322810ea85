"""What is asked of each cell: the sections of a grid file that say how it is measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator

from mar.config import Scalar, Section
from orderings import PlanSpec, parse_adaptive, to_text

SplitName = Literal["train", "validation", "test"]


class NllEvaluation(Section):
    """The likelihood of a split along each plan."""

    split: SplitName = "test"
    images: int | None = Field(default=None, ge=2, description="so many, spread over the split; None: all")
    seed: int = Field(default=0, ge=0, description="of random orders, dequantisation and the noise of bounds")
    orders: int = Field(default=0, ge=0, description="of random plans: so many orders, shared by all images")
    estimator: str = Field(default="exact", description="exact, or steps drawn for each image, e.g. steps:8")
    kind: str | None = Field(default=None, description="exact, ode or bound; None: the head's default")


class FidEvaluation(Section):
    """Images generated along each plan, from the same noise and classes, against a split of real ones."""

    images: int = Field(default=1000, ge=8)
    split: SplitName = "test"
    guidance: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=1.0, ge=0)
    seed: int = Field(default=0, ge=0)
    shown: int = Field(default=40, ge=1, description="images in the picture of samples")
    animated: int = Field(default=12, ge=1, description="images in the animation")


class Variant(Section):
    """A way to use a trained model: how it generates, and what of that its likelihood sees. A row of the table each."""

    name: str = Field(min_length=1)
    guidance: float | None = Field(default=None, ge=0, description="None: as the section fid says")
    temperature: float | None = Field(default=None, ge=0, description="None: as the section fid says")
    adaptive: str = Field(default="", description="the rule that finds the order; of the plans, the set sizes count")
    options: dict[str, Scalar] = Field(default={}, description="of the sampler or the network: steps, refresh, …")
    likelihood: dict[str, Scalar] = Field(default={}, description="options of scoring: refresh, timesteps, …")

    @field_validator("adaptive")
    @classmethod
    def _known(cls, rule: str) -> str:
        if rule:
            parse_adaptive(rule)
        return rule

    @property
    def is_scored_alone(self) -> bool:
        """Whether its likelihood differs from the plan's."""
        return bool(self.adaptive or self.likelihood)

    @property
    def has_likelihood(self) -> bool:
        """Whether there is one: not where the order depends on the values sampled."""
        return not (self.adaptive and parse_adaptive(self.adaptive).uses_sampled_values)


def ways(plans: Iterable[str], variants: tuple[Variant, ...]) -> list[tuple[str, Variant | None]]:
    """Each plan in each variant; without any, in the one way that has no name. An order that is found along the way
    takes nothing but the set sizes from a plan: it is asked along the first plan of each partition alone."""
    found: dict[tuple[str, str], tuple[str, Variant | None]] = {}
    for plan in plans:
        for variant in variants or (None,):
            along, name = plan, variant.name if variant is not None else ""
            if variant is not None and variant.adaptive:
                along = to_text(PlanSpec.parse(plan)[1])
            found.setdefault((along, name), (plan, variant))
    return list(found.values())


class SpeedEvaluation(Section):
    """Training steps and generations along each model's own plan, one model at a time, nothing else at work."""

    batch: int = Field(default=64, ge=1, description="images at a time")
    seconds: float = Field(default=1.0, ge=0, description="of measuring a model, at least; three rounds at least")
    clock: Literal["wall", "cpu"] = Field(default="wall", description="cpu: for a machine busy with other things")


class ProbeEvaluation(Section):
    """A linear classifier of each model's features (``mar.metrics.probe``)."""

    sets: int = Field(default=8, ge=1, description="passes of a network that needs one for each step")
    strength: float = Field(default=1.0, gt=0, description="inverse of the L2 penalty")
    seed: int = Field(default=0, ge=0, description="of random orders")


class SetsEvaluation(Section):
    """The costs of sets along the orderings of plans whose partition is ``optimal`` (``mar.experiments.sets``)."""

    images: int = Field(default=256, ge=2, description="of validation; fewer there: each with several random orders")
    seed: int = Field(default=0, ge=0, description="of random orders")


EVALUATIONS: dict[str, type[Section]] = {
    "nll": NllEvaluation,
    "fid": FidEvaluation,
    "speed": SpeedEvaluation,
    "probe": ProbeEvaluation,
    "sets": SetsEvaluation,
}

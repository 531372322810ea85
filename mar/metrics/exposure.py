"""Exposure bias: the NLL of each step on data beside that on the model's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from mar.config import Section
from mar.core.errors import Unsupported
from mar.core.progress import Progress
from mar.likelihood.exposure import Exposure, exposure
from mar.metrics.base import Metric, Question, SplitName, Subject, Workspace, save
from mar.model.plans import Plans
from mar.run import Run
from mar.sampling.samplers import generate

IMAGES = 256


class ExposureBias(Metric):
    """Misfit and exposure along each plan."""

    class Options(Section):
        split: SplitName = "test"
        images: int = Field(default=IMAGES, ge=2, description="so many, spread over the split, and as many samples")
        seed: int = Field(default=0, ge=0)
        kind: str | None = Field(default=None, description="one of the head's likelihoods; None: its default")

    name, title, Answer = "exposure", "exposure", Exposure
    options: Options

    def question(self, subject: Subject) -> Question | None:
        variant = subject.variant
        return None if variant is not None and variant.is_scored_alone else self.along_plan(subject, None)

    def compute(self, question: Question, at: Workspace) -> Exposure:
        assert question.plan is not None
        (plan,) = exposed_plans(at.load(), [question.plan])
        o = self.options
        return measure_exposure(at.load(), plan, o.split, o.images, o.kind, o.seed, progress=at.progress)


def exposed_plans(run: Run, plans: Sequence[str]) -> list[Plans]:
    """Return what samples each plan.

    Raises:
        Unsupported: a plan whose order is found while the model generates.
    """
    chosen = [run.plans(plan) for plan in plans]
    for plan in chosen:
        if plan.rule is not None or plan.learned:
            raise Unsupported(f"exposure compares images and samples along one plan; {plan.text} finds one for each")
    return chosen


def measure_exposure(
    run: Run,
    plan: Plans,
    split: str = "test",
    n: int | None = None,
    kind: str | None = None,
    seed: int = 0,
    budget: int | None = None,
    progress: Progress | None = None,
) -> Exposure:
    """Score ``n`` images spread over a split (None: 256) and as many samples along a plan.

    Args:
        budget: bytes of activations; None: the device's default.
    """
    images, labels = run.some(split, n or IMAGES)
    labels = labels if run.model.n_classes else None
    return exposure(
        run.model, images, labels, plan.draw, lambda rows, label_B, noise: generate(run.model, rows, label_B, noise),
        plan.text, seed, kind, budget, progress,
    )  # fmt: skip


def save_exposure(run: Run, result: Exposure, split: str, seed: int, weights: str) -> Path:
    """Write RUN/scores/exposure-PLAN-….json."""
    content = {"split": split, "seed": seed, "weights": weights, **result.to_dict()}
    return save(run, "exposure", result.plan, content)

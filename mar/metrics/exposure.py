"""Exposure bias: the NLL of each step on data beside that on the model's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import Field

from mar.config import Section
from mar.core.errors import Unsupported
from mar.core.progress import Progress
from mar.core.table import Column, Table, fields, plus_minus, with_error
from mar.likelihood.exposure import Curve, Exposure, exposure
from mar.metrics.base import Metric, Question, SplitName, Subject, Units, Workspace, save
from mar.model.plans import Plans
from mar.run import Run
from mar.sampling.samplers import generate

IMAGES = 256
_PARTS = 8  # rows of the table: the order in so many parts


class ExposureBias(Metric):
    """Misfit and exposure along each plan."""

    class Options(Section):
        split: SplitName = "test"
        images: int = Field(default=IMAGES, ge=2, description="number of images, spread over the split, and of samples")
        seed: int = Field(default=0, ge=0)
        kind: str | None = Field(default=None, description="one of the head's likelihoods; None: its default")

    name, title, Answer = "exposure", "exposure", Exposure
    options: Options

    def question(self, subject: Subject) -> Question | None:
        variant = subject.variant
        return None if variant is not None and variant.is_scored_alone else self.along_plan(subject, None)

    def compute(self, question: Question, at: Workspace) -> Exposure:
        (plan,) = exposed_plans(at.load(), [question.plan or ""])
        o = self.options
        return measure_exposure(at.load(), plan, o.split, o.images, o.kind, o.seed, progress=at.progress)

    @classmethod
    def columns(cls, answers: Sequence[Exposure]) -> Sequence[Column[Exposure]]:
        return [
            with_error(
                name, f"{name}_summed.nats.-1", f"{name}_summed.standard_error.-1", 2, "+", better="lower", unit="nats"
            )
            for name in ("misfit", "exposure")
        ]

    @classmethod
    def data_columns(cls) -> Sequence[Column[Exposure]]:
        return fields(
            exposure_images="n_images",
            misfit_nats_per_image="misfit_summed.nats.-1",
            misfit_nats_per_image_standard_error="misfit_summed.standard_error.-1",
            exposure_nats_per_image="exposure_summed.nats.-1",
            exposure_nats_per_image_standard_error="exposure_summed.standard_error.-1",
        )


def exposed_plans(run: Run, plans: Sequence[str]) -> list[Plans]:
    """Return what samples each plan. Raise Unsupported: a plan whose order is found while the model generates."""
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
    """Score ``n`` images spread over a split (None: 256) and as many samples along a plan."""
    images, labels = run.subset(split, n or IMAGES)
    labels = labels if run.model.conditional else None
    return exposure(
        run.model, images, labels, plan.sample, lambda rows, label_B, noise: generate(run.model, rows, label_B, noise),
        plan.text, seed, kind, budget, progress,
    )  # fmt: skip


def save_exposure(run: Run, result: Exposure, split: str, seed: int, weights: str) -> Path:
    """Write RUN/scores/exposure-PLAN-….json."""
    return save(run, "exposure", result.plan, {"split": split, "seed": seed, "weights": weights, **asdict(result)})


def exposure_table(data: str, r: Exposure, split: str, weights: str, units: Units) -> Table:
    """Return nats per token in parts of the order, and the sums of misfit and exposure up to the end of each part."""
    steps = len(r.tokens_per_step)
    parts = min(_PARTS, steps)
    rows = [(part * steps // parts, (part + 1) * steps // parts) for part in range(parts)]

    def mean(title: str, curve: Curve) -> Column[tuple[int, int]]:
        return Column(title, lambda row: sum(curve.nats[slice(*row)]) / sum(r.tokens_per_step[slice(*row)]))

    def total(title: str, curve: Curve) -> Column[tuple[int, int]]:
        return Column(
            title, lambda row: curve.nats[row[1] - 1], unit=units.nats,
            text=lambda row: plus_minus(curve.nats[row[1] - 1], curve.standard_error[row[1] - 1], 2, "+"),
        )  # fmt: skip

    columns: list[Column[tuple[int, int]]] = [
        Column("steps", lambda row: f"{row[0]}–{row[1] - 1}" if row[1] - row[0] > 1 else str(row[0])),
        mean("data, nats/token", r.data),
        mean("expected after data", r.expected_after_data),
        mean("own samples", r.own),
        total("misfit up to here", r.misfit_summed),
        total("exposure up to here", r.exposure_summed),
    ]
    note = (
        "± is one standard error over pairs; misfit: the data cost more than the model expects; exposure: the model "
        "expects something else after its own samples (docs/sets-and-exposure.md)"
    )
    title = f"{data} {split}, {r.plan}, {r.kind}, {r.n_images} {units.example}s, {weights} weights"
    return Table(columns, rows, [note], title)

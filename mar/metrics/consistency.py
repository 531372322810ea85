"""Order consistency: as a metric of a grid, and as records in RUN/scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from mar.config import Scalar, Section
from mar.core.errors import Unsupported
from mar.core.files import environment, settings_digest
from mar.core.progress import Progress, bar
from mar.core.readers import reading
from mar.core.records import Partial, find
from mar.core.table import Column, Table, fields, plus_minus, with_error
from mar.likelihood.consistency import LEAST, Consistency, Estimate, Profile, consistency, root
from mar.metrics.base import Metric, Question, SplitName, Subject, Units, Workspace, save, scores_folder
from mar.metrics.nll import NllRequest, Say, nll_question
from mar.model.model import scoring_options
from mar.model.plans import Plans
from mar.run import Run
from orderings import PlanSpec, to_text
from orderings.partitions import Singles


class OrderConsistency(Metric):
    """Spread over orders and violations of the chain rule, along each random order of one token at a time."""

    class Options(Section):
        split: SplitName = "test"
        images: int = Field(default=256, ge=LEAST, description="number of images, spread over the split")
        orders: int = Field(default=8, ge=LEAST, description="random ones, the same for all images")
        pairs: int = Field(default=16, ge=1, description="of each image, whose two orders are compared")
        seed: int = Field(default=0, ge=0, description="of orders, pairs and dequantisation")
        kind: str | None = Field(default=None, description="exact or ode; None: the head's default")
        likelihood: dict[str, Scalar] = Field(default={}, description="scoring options of the head: tolerance, …")

    name, title, Answer = "consistency", "order consistency", Consistency
    options: Options

    def question(self, subject: Subject) -> Question | None:
        """Return the question along a random order; None for other plans, which have one order for an image."""
        (ordering, partition), variant = subject.plan, subject.variant
        if not ordering.random or ordering.learned or partition != Singles():
            return None
        return None if variant is not None and variant.is_scored_alone else self.along_plan(subject, None)

    def compute(self, question: Question, at: Workspace) -> Consistency:
        return measure_consistency(at.load(), at.load().plans(question.plan), self.options, progress=at.progress)

    @classmethod
    def columns(cls, answers: Sequence[Consistency]) -> Sequence[Column[Consistency]]:
        """No direction is better: a model that has learned little is consistent, too."""
        return [
            with_error("order spread", "spread.value", "spread.standard_error", 4, unit="nats/token"),
            with_error("chain rule", "violation.rms.0", "violation.rms_standard_error.0", 4, unit="rms nats/pair"),
            with_error("ensemble gap", "ensemble_gap.value", "ensemble_gap.standard_error", 2, unit="nats"),
        ]

    @classmethod
    def data_columns(cls) -> Sequence[Column[Consistency]]:
        return fields(
            consistency_kind="kind",
            consistency_images="n_images",
            consistency_orders="orders",
            consistency_pairs="pairs",
            order_spread_nats_per_token="spread.value",
            order_spread_nats_per_token_standard_error="spread.standard_error",
            chain_rule_rms_nats="violation.rms.0",
            chain_rule_rms_nats_standard_error="violation.rms_standard_error.0",
            chain_rule_mean_nats="violation.mean.0",
            chain_rule_mean_nats_standard_error="violation.mean_standard_error.0",
            ensemble_gap_nats_per_image="ensemble_gap.value",
            ensemble_gap_nats_per_image_standard_error="ensemble_gap.standard_error",
        )

    @classmethod
    def notes(cls, answers: Sequence[Consistency], grid: Mapping[str, Any]) -> list[str]:
        first = answers[0]
        return [
            f"Order consistency on {first.n_images} images, 0 for a joint distribution: the spread of log p over "
            f"{first.orders} random orders of one image, the violation of the chain rule by {first.pairs} pairs of "
            "each, and the mean NLL of the orders minus that of their mixture (docs/consistency.md)."
        ]


def random_plans(run: Run, plans: Sequence[str]) -> list[Plans]:
    """Return what draws each plan; of none, the training plan if its order is random, otherwise ``random``.

    Raises:
        Unsupported: a plan with one order for an image, or with sets of several tokens.
    """
    trained = run.plans(None)
    default = to_text(run.parts.ordering) if trained.random and not trained.learned else "random"
    chosen = [run.plans(plan) for plan in plans or [default]]
    for plan in chosen:
        if not plan.random or plan.learned:
            raise Unsupported(f"order consistency compares random orders, e.g. random, and {plan.text} is not one")
        if PlanSpec.parse(plan.text).partition != Singles():
            raise Unsupported(
                f"order consistency takes one token at a time: {plan.text} has sets, whose tokens are independent by "
                "definition"
            )
    return chosen


def measure_consistency(
    run: Run,
    plans: Plans,
    asked: OrderConsistency.Options,
    budget: int | None = None,
    progress: Progress | None = None,
    kept: Partial | None = None,
) -> Consistency:
    """Measure images spread over a split; finished work is kept in ``kept``. Errors: those of ``consistency``."""
    images, labels = run.subset(asked.split, asked.images)
    labels = labels if run.model.conditional else None
    with scoring_options(run.model, dict(asked.likelihood)):
        return consistency(
            run.model, images, labels, plans, asked.orders, asked.pairs, asked.seed, asked.kind, budget, progress, kept
        )


def score_consistency(
    run: Run,
    plans: Plans,
    asked: OrderConsistency.Options,
    weights: str,
    say: Say,
    budget: int | None = None,
    again: bool = False,
) -> tuple[Path, Consistency]:
    """Return the record in RUN/scores and what it holds, measured unless the same question has one.

    Args:
        weights: the name of those that ``run`` was loaded with.
        say: is told about a record that is read.
        again: measure anew what is measured already.
    """
    made_by, n = environment(), len(run.subset(asked.split, asked.images)[0])
    likelihood = dict(asked.likelihood)
    request = NllRequest(
        (), split=asked.split, kind=asked.kind, likelihood=likelihood, seed=asked.seed, weights=weights
    )
    question = nll_question(run, plans, request, n, made_by) | {"orders": asked.orders, "pairs": asked.pairs}
    answer, scores = settings_digest(question, 16), scores_folder(run)
    if not again and (found := find(scores.glob("consistency-*.json"), {"fingerprint": answer})):
        say(f"{plans.text}: measured before, kept in {found[0].name} (--again measures it anew)")
        with reading(found[0], "the order consistency of a run"):
            return found[0], TypeAdapter(Consistency).validate_python(found[1])
    kept = Partial(scores / "partial" / answer)
    if again:
        kept.delete()
    with bar(f"consistency {plans.text}") as progress:
        result = measure_consistency(run, plans, asked, budget, progress, kept)
    content = {"split": asked.split, "seed": asked.seed, "weights": weights, "likelihood": likelihood}
    path = save(run, "consistency", plans.text, content | asdict(result) | {"fingerprint": answer}, made_by)
    kept.delete()
    return path, result


def consistency_tables(data: str, r: Consistency, split: str, weights: str, units: Units) -> list[Table]:
    """Return the table of figures, and those of violations by known tokens and by distance."""
    violation = r.violation
    figures: list[tuple[str, Estimate, str]] = [
        ("spread over orders of one " + units.example, r.spread, "nats/token"),
        (f"  orders better for all {units.example}s", root(r.variance_orders), "nats/token"),
        (f"  orders better for one {units.example}", root(r.variance_interaction), "nats/token"),
        (f"spread over {units.example}s", root(r.variance_images), "nats/token"),
        ("chain rule of a pair, rms", Estimate(violation.rms[0], violation.rms_standard_error[0]), "nats"),
        ("chain rule of a pair, mean", Estimate(violation.mean[0], violation.mean_standard_error[0]), "nats"),
        ("orders minus their mixture", r.ensemble_gap, units.nats),
        ("NLL, mean of the orders", r.nats_per_token, "nats/token"),
    ]
    columns: list[Column[tuple[str, Estimate, str]]] = [
        Column("figure", lambda row: row[0], words=True),
        Column("value", lambda row: row[1].value, digits=4),
        Column("standard error", lambda row: row[1].standard_error, digits=4),
        Column("unit", lambda row: row[2], words=True),
    ]
    notes = [
        "a joint distribution has zeros, but for the spread over images and the NLL (docs/consistency.md)",
        "standard errors of spreads and of the NLL are over images and orders, the others over images",
        "mean of a pair: positive if the token that is first in raster order is better taken first",
    ]
    title = (
        f"order consistency, {data} {split}, {r.plan}, {r.kind}, {r.n_images} {units.example}s, {r.orders} orders, "
        f"{r.pairs} pairs, {weights} weights"
    )
    return [
        Table(columns, figures, notes, title),
        _profile("known tokens", r.by_known),
        _profile("distance", r.by_distance),
    ]


def _profile(place: str, profile: Profile) -> Table:
    """Return the table of violations by bins."""
    columns: list[Column[int]] = [
        Column(place, lambda k: profile.at[k], digits=1),
        Column(
            "rms, nats", lambda k: profile.rms[k],
            text=lambda k: plus_minus(profile.rms[k], profile.rms_standard_error[k], 4),
        ),
        Column(
            "mean, nats", lambda k: profile.mean[k],
            text=lambda k: plus_minus(profile.mean[k], profile.mean_standard_error[k], 4, "+"),
        ),
    ]  # fmt: skip
    return Table(columns, range(len(profile.at)), title=f"violation of the chain rule by {place}")

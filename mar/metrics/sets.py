"""The costs of sets of tokens, measured on validation images: the partition ``optimal`` chooses its sets by them.

N images · L tokens
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import Field

from mar.config import Section
from mar.core.errors import UserError
from mar.core.files import environment, write_atomic
from mar.core.progress import Progress
from mar.core.table import Column, Table, plus_minus
from mar.likelihood.set_sizes import SCHEDULES, Predicted, measure_set_costs, plans_of, predictions
from mar.likelihood.summary import Likelihood
from mar.metrics.base import Metric, PlanMap, Question, Subject, Units, Workspace, awaits_costs, save
from mar.metrics.nll import NllRequest, Say, difference_columns, score_plans
from mar.metrics.statistics import Difference, paired_differences
from mar.model.plans import costs_file, resolve_optimal
from mar.run import Run
from orderings import Grid, Ordering, PlanSpec, parse_ordering, to_text
from orderings.optimal import SetCosts, read_set_costs
from orderings.partitions import Singles

IMAGES = 256  # of each split, unless asked for more: a pass for every token of every image
KS = (4, 8, 16)  # numbers of sets that are tested unless others are asked for, those that the grid allows


@dataclass(frozen=True)
class MeasuredSets:
    """What the costs of sets were measured on."""

    n_images: int  # of the validation split
    orders: int  # random ones of each image


class Sets(Metric):
    """Set costs along the ordering of each plan whose partition is ``optimal``."""

    class Options(Section):
        images: int = Field(default=256, ge=2, description="of validation; fewer: each with several random orders")
        seed: int = Field(default=0, ge=0, description="of random orders")

    name, title, Answer = "sets", "set costs", MeasuredSets
    default = Options()
    options: Options

    def question(self, subject: Subject) -> Question | None:
        ordering = subject.measured_along
        if ordering is None:
            return None
        content = {"plan": ordering, "weights": subject.weights, **self.options.model_dump(mode="json")}
        return Question(self.name, ordering, content=content)

    def compute(self, question: Question, at: Workspace) -> MeasuredSets:
        ordering, o = parse_ordering(question.plan or ""), self.options
        costs = measured(at.load(), ordering, o.images, o.seed, progress=at.progress)
        return MeasuredSets(costs.n_images, costs.provenance["orders"])

    @classmethod
    def data_columns(cls) -> Sequence[Column[MeasuredSets]]:
        return ()


def with_measured_sets(found: PlanMap, plan: PlanSpec, folder: Path) -> PlanMap:
    """Return the map of a plan in the sets that the run in ``folder`` measured; unchanged where none are measured."""
    ordering, partition = plan
    if not awaits_costs(partition) or not costs_file(folder, to_text(ordering)).is_file():
        return found
    sets = resolve_optimal(partition, to_text(ordering), folder)
    step_BL = sets.steps(torch.tensor([found.rank_L]), Grid(found.grid))
    return replace(found, step_L=tuple(step_BL[0].tolist()))


def measured(
    run: Run,
    ordering: Ordering,
    n: int,
    seed: int = 0,
    kind: str | None = None,
    weights: str = "ema",
    budget: int | None = None,
    progress: Progress | None = None,
) -> SetCosts:
    """Return the costs of ``n`` validation images from the run's folder; measure and write them where they differ.

    A split of fewer images gives each of them several orders where the ordering is random. ``weights`` names those that
    ``run`` was loaded with.
    """
    path = costs_file(run.folder.path, to_text(ordering))
    n_images = min(n, len(run.data.validation))
    if not n_images:
        raise UserError(f"sets are chosen by the costs of validation images, and {run.data.name} has none")
    question = {
        "seed": seed,
        "kind": run.model.head.check_kind(kind),
        "orders": max(1, n // n_images) if ordering.random else 1,
        "weights": weights,
        "split": "validation",
        "data": run.data.name,
        "data_fingerprint": run.data.fingerprint,
        "iteration": run.checkpoint.iteration,
    }
    if path.is_file():
        known = read_set_costs(path)
        if known.n_images == n_images and question.items() <= known.provenance.items():
            return known
    images, labels = run.subset("validation", n_images)
    costs = measure_set_costs(run.model, images, labels, ordering, seed, question["orders"], kind, budget, progress)
    costs = replace(costs, provenance={**costs.provenance, **question, "environment": environment()})
    write_atomic(path, json.dumps(asdict(costs)))
    return costs


@dataclass(frozen=True)
class SetScores:
    """Set costs of an ordering, the best sets by them, and the NLL of schedules on test images."""

    costs: SetCosts
    predicted: list[Predicted]
    one_by_one: Likelihood  # one token at a time
    excess: dict[str, Difference]  # plan -> its NLL minus that of one token at a time
    to_best: dict[int, dict[str, Difference]]  # number of sets -> plan -> its NLL minus that of the best sets


def orderings_of(plans: Sequence[str], run: Run) -> list[Ordering]:
    """Return the orderings of plans; of none, the training ordering. Raise UserError: a plan names a partition."""
    found = [PlanSpec.parse(plan) for plan in plans]
    for plan, (ordering, partition) in zip(plans, found, strict=True):
        if partition != Singles():
            raise UserError(
                f"mar score sets searches the sets itself: name orderings, {to_text(ordering)} and not {plan}"
            )
    return [ordering for ordering, _ in found] or [run.parts.ordering]


def check_ks(ks: Sequence[int], run: Run) -> tuple[int, ...]:
    """Return the numbers of sets in ascending order, each once; of none, ``KS``. Raise UserError: a number that leaves
    no choice."""
    n = len(run.grid)
    if outside := [k for k in ks if not 1 < k < n]:
        raise UserError(f"--ks takes numbers of sets above 1 and below the {n} tokens, not {outside[0]}")
    return tuple(sorted(set(ks))) or tuple(k for k in KS if k < n)


def score_sets(
    run: Run, ordering: Ordering, ks: Sequence[int], request: NllRequest, say: Say, progress: Progress | None = None
) -> SetScores:
    """Measure set costs on validation and score the best sets, equal ones and the cosine schedule on test images.

    Args:
        request: number of images of each split, seed, kind, budget and weights.
        say: is told about likelihoods that are read from RUN/scores.
    """
    text, n = to_text(ordering), request.n or IMAGES
    costs = measured(run, ordering, n, request.seed, request.kind, request.weights, request.budget, progress)
    plans = {k: plans_of(text, k).values() for k in ks}
    asked = (text, *(plan for of_k in plans.values() for plan in of_k))
    found = score_plans(run, replace(request, plans=asked, n=n), say).likelihoods
    to_best = {k: paired_differences({plan: found[plan] for plan in plans[k]}, f"{text}/optimal:{k}") for k in ks}
    return SetScores(costs, predictions(costs, ks), found[text], paired_differences(found, text), to_best)


def save_sets(run: Run, found: SetScores, request: NllRequest) -> Path:
    """Write RUN/scores/sets-ORDERING-….json."""
    costs, one = found.costs, found.one_by_one
    content = {
        "split": "test",
        "seed": request.seed,
        "weights": request.weights,
        "n_images": one.n_images,
        "kind": one.kind,
        "ordering": costs.ordering,
        "measured_on": {"split": "validation", "n_images": costs.n_images},
        "one_at_a_time_nats_per_image": one.nats_per_image,
        "predicted": [asdict(row) for row in found.predicted],
        "above_one_at_a_time": {plan: asdict(difference) for plan, difference in found.excess.items()},
        "minus_optimal": {plan: asdict(d) for of_k in found.to_best.values() for plan, d in of_k.items()},
        "warnings": one.warnings,
    }
    return save(run, "sets", costs.ordering, content)


def sets_tables(found: SetScores, data: str, weights: str, units: Units) -> list[Table]:
    """Return the table of every schedule by the measured costs, and that of the schedules tested on test images."""
    costs, one, predicted = found.costs, found.one_by_one, {row.k: row for row in found.predicted}
    by_costs = Table[Predicted](
        [
            Column("K", lambda row: row.k),
            *(Column(name, lambda row, name=name: row.excess_nats[name], digits=2) for name in SCHEDULES),
            Column("the best sets", lambda row: _brief(row.optimal_sizes), words=True),
        ],
        found.predicted,
        title=f"parallel generation along {costs.ordering}: {units.nats} above one token at a time, by the costs of "
        f"{costs.n_images} validation {units.example}s (lower is better)",
    )
    rows = [(k, schedule, plan) for k in found.to_best for schedule, plan in plans_of(costs.ordering, k).items()]
    columns: list[Column[tuple[int, str, str]]] = [
        Column("plan", lambda row: row[2], words=True),
        *difference_columns(f"{units.nats} above one at a time [95 %]", lambda row: found.excess[row[2]]),
        Column("predicted", lambda row: predicted[row[0]].excess_nats[row[1]], digits=2, sign=True),
        difference_columns("minus optimal [95 %]", lambda row: found.to_best[row[0]].get(row[2]))[0],
    ]
    notes = [
        f"intervals: 95 %, bootstrap over {units.example}s, the same ones and orders (docs/sets-and-exposure.md)",
        *(f"warning: {warning}" for warning in one.warnings),
    ]
    title = (
        f"{data} test, {one.n_images} {units.example}s, {weights} weights, {one.kind}: "
        f"{plus_minus(one.nats_per_image, one.standard_error_nats, 2)} {units.nats} one token at a time"
    )
    return [by_costs, Table(columns, rows, notes, title)]


def _brief(sizes: tuple[int, ...], most: int = 16) -> str:
    """Return the sizes, the middle of a long list left out."""
    if len(sizes) <= most:
        return " ".join(map(str, sizes))
    half = most // 2
    return f"{' '.join(map(str, sizes[:half]))} … {' '.join(map(str, sizes[-half:]))}"

"""``mar score RUN --sets``: what parallel generation costs, the best set sizes, and whether they hold on test images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console

from mar.cli.score_nll import Request, score_plan
from mar.cli.scoring import save, scores_folder
from mar.cli.sets_tables import predicted_table, tested_table
from mar.cli.units import Units
from mar.core.errors import UserError
from mar.core.progress import bar, wide_console
from mar.experiments.compare import paired_differences
from mar.experiments.result import Difference
from mar.experiments.sets import measured
from mar.likelihood.score import Likelihood
from mar.likelihood.set_sizes import Predicted, plans_of, predictions
from mar.model.plans import costs_file
from mar.reports.sets import Tested, draw_sets
from mar.run import Run
from orderings import Ordering, PlanSpec, to_text
from orderings.optimal import SetCosts
from orderings.partitions import Singles

IMAGES = 256  # of each split, unless asked for more: a pass for every token of every image
KS = (4, 8, 16)


@dataclass(frozen=True)
class Settings:
    """What the figures of one command share."""

    ks: tuple[int, ...]
    n: int
    seed: int
    budget: int | None
    weights: str
    kind: str | None


def score_sets(
    run: Run,
    plans: Sequence[str],
    ks: Sequence[int] = KS,
    n: int | None = None,
    seed: int = 0,
    budget: int | None = None,
    weights: str = "ema",
    kind: str | None = None,
) -> None:
    """Measure set costs on validation, find the best sets for every K, and score those of some K on test.

    For each ordering writes RUN/scores/set-costs-ORDERING.json (which the partition ``optimal`` reads), sets-….json and
    sets-ORDERING.png, and prints both tables. Costs that were measured before with these settings are read.

    Args:
        plans: orderings, short texts; none: the training one.
        ks: numbers of sets that are scored on test images.
        n: so many images of each split, spread over it; None: 256.
        budget: bytes of activations; None: what suits the device.
        kind: one of the head's likelihoods; None: its default.

    Raises:
        UserError: a plan that names a partition, a K that leaves no choice, or a folder that cannot be written.
    """
    scores_folder(run)
    orderings = [_ordering(plan) for plan in plans] or [PlanSpec.parse(run.training_plan)[0]]
    outside = [k for k in ks if not 1 < k < len(run.grid)]
    if outside:
        raise UserError(f"--ks wants numbers of sets between 1 and {len(run.grid)}, not {outside[0]}")
    settings = Settings(tuple(sorted(set(ks))), n or IMAGES, seed, budget, weights, run.model.head.check_kind(kind))
    for ordering in orderings:
        _score(run, ordering, settings)


def _ordering(plan: str) -> Ordering:
    ordering, partition = PlanSpec.parse(plan)
    if partition != Singles():
        raise UserError(f"--sets looks for the sets itself: name orderings, {to_text(ordering)} and not {plan}")
    return ordering


def _score(run: Run, ordering: Ordering, settings: Settings) -> None:
    text, console = to_text(ordering), wide_console()
    costs = _measured(run, ordering, settings)
    predicted = predictions(costs, settings.ks)
    units = Units.of_run(run)
    console.print(predicted_table(costs, predicted, units))
    likelihoods = _likelihoods(run, text, settings, console)
    one_by_one = likelihoods[text]
    excess = paired_differences(likelihoods, text)
    tested = [
        Tested(k, schedule, excess[plan].nats_per_image, excess[plan].interval_nats)
        for k in settings.ks
        for schedule, plan in plans_of(text, k).items()
    ]
    to_best = {k: _to_best(likelihoods, text, k) for k in settings.ks}
    console.print(tested_table(run.data.name, settings.weights, one_by_one, predicted, excess, to_best, units))
    console.print(
        f"intervals: 95 %, bootstrap over {units.example}s, the same ones and orders (docs/sets-and-exposure.md)"
    )
    for warning in one_by_one.warnings:
        console.print(f"warning: {warning}")
    file = _save(run, one_by_one, costs, predicted, excess, to_best, settings)
    picture = file.with_suffix(".png")
    title = (
        f"{run.data.name}, {text}: costs of {costs.n_images} validation {units.example}s, dots "
        f"{one_by_one.n_images} test {units.example}s"
    )
    draw_sets(title, predicted, tested, picture)
    console.print(f"wrote {costs_file(run.folder.path, text)}, {file.name} and {picture.name}")


def _measured(run: Run, ordering: Ordering, settings: Settings) -> SetCosts:
    with bar(f"set costs {to_text(ordering)}") as progress:
        return measured(
            run, ordering, settings.n, settings.seed, settings.kind, settings.weights, settings.budget, progress
        )


def _likelihoods(run: Run, ordering: str, settings: Settings, console: Console) -> dict[str, Likelihood]:
    """Test NLL one token at a time and under every schedule of every K: same images, orders and noise.

    Each is a record in RUN/scores, as ``mar score --nll`` writes it, and taken from there when it was scored before.
    """
    plans = [ordering, *(plan for k in settings.ks for plan in plans_of(ordering, k).values())]
    request = Request(
        tuple(plans), n=settings.n, kind=settings.kind, budget=settings.budget, seed=settings.seed,
        weights=settings.weights,
    )  # fmt: skip
    records = {plan: json.loads(score_plan(run, plan, request, console).read_text()) for plan in plans}
    return {plan: TypeAdapter(Likelihood).validate_python(record) for plan, record in records.items()}


def _to_best(likelihoods: dict[str, Likelihood], ordering: str, k: int) -> dict[str, Difference]:
    """plan: the other schedules of k sets minus the best one."""
    of_k = {plan: likelihoods[plan] for plan in plans_of(ordering, k).values()}
    return paired_differences(of_k, f"{ordering}/optimal:{k}")


def _save(
    run: Run,
    one_by_one: Likelihood,
    costs: SetCosts,
    predicted: Sequence[Predicted],
    excess: dict[str, Difference],
    to_best: dict[int, dict[str, Difference]],
    settings: Settings,
) -> Path:
    shared = {"split": "test", "seed": settings.seed, "weights": settings.weights, "n_images": one_by_one.n_images}
    content = {
        **shared,
        "kind": one_by_one.kind,
        "ordering": costs.ordering,
        "measured_on": {"split": "validation", "n_images": costs.n_images},
        "one_at_a_time_nats_per_image": one_by_one.nats_per_image,
        "predicted": [asdict(row) for row in predicted],
        "above_one_at_a_time": {plan: asdict(difference) for plan, difference in excess.items()},
        "minus_optimal": {plan: asdict(d) for of_k in to_best.values() for plan, d in of_k.items()},
        "warnings": one_by_one.warnings,
    }
    return save(run, "sets", costs.ordering, content)

"""``mar score RUN --sets``: what parallel generation costs, the best set sizes, and whether they hold on test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.table import Table

from mar.ablation.compare import paired_differences
from mar.ablation.result import Difference
from mar.commands.progress import bar, wide_console
from mar.commands.scoring import save
from mar.errors import UserError
from mar.likelihood.score import Likelihood
from mar.likelihood.set_sizes import measure_set_costs
from mar.reports.sets import Predicted, Tested, draw_sets
from mar.run import Run
from mar.training.run_folder import environment
from orderings import Ordering, describe, parse_partition, parse_plan
from orderings.optimal import costs_file
from orderings.partitions import Singles
from orderings.set_costs import SetCosts, best_sets, cost_of, read_set_costs

IMAGES = 256  # of each split, unless asked for more: a pass for every token of every image
KS = (4, 8, 16)
_SCHEDULES = {
    "optimal": "optimal",
    "equal": "linear",
    "cosine": "cosine",
}  # as tables call them: our name of a partition


@dataclass(frozen=True)
class Settings:
    """What the figures of one command share."""

    ks: tuple[int, ...]
    n: int
    seed: int
    budget: int | None
    weights: str


def score_sets(
    run: Run,
    plans: Sequence[str],
    ks: Sequence[int] = KS,
    n: int | None = None,
    seed: int = 0,
    budget: int | None = None,
    weights: str = "ema",
) -> None:
    """Measure set costs on validation, find the best sets for every K, and score those of some K on test.

    For each ordering writes RUN/scores/set-costs-ORDERING.json (which the partition ``optimal`` reads), sets-….json and
    sets-ORDERING.png, and prints both tables. Costs that were measured before with these settings are read.

    Args:
        plans: orderings, short texts.
        ks: numbers of sets that are scored on test images.
        n: the first so many images of each split; None: 256.
        budget: bytes of activations; None: what suits the device.

    Raises:
        UserError: a plan that names a partition, or a K that leaves no choice.
    """
    orderings = [_ordering(plan) for plan in plans]
    outside = [k for k in ks if not 1 < k < len(run.grid)]
    if outside:
        raise UserError(f"--ks wants numbers of sets between 1 and {len(run.grid)}, not {outside[0]}")
    settings = Settings(tuple(sorted(set(ks))), n or IMAGES, seed, budget, weights)
    for ordering in orderings:
        _score(run, ordering, settings)


def _ordering(plan: str) -> Ordering:
    ordering, partition = parse_plan(plan)
    if partition != Singles():
        raise UserError(f"--sets looks for the sets itself: name orderings, {describe(ordering)} and not {plan}")
    return ordering


def _score(run: Run, ordering: Ordering, settings: Settings) -> None:
    text, console = describe(ordering), wide_console()
    costs = _measured(run, ordering, settings)
    predicted = predictions(costs, settings.ks)
    console.print(_predicted_table(costs, predicted))
    likelihoods = _likelihoods(run, text, settings)
    one_by_one = likelihoods[text]
    excess = paired_differences(likelihoods, text)
    tested = [
        Tested(k, schedule, excess[plan].nats_per_image, excess[plan].interval_nats)
        for k in settings.ks
        for schedule, plan in _plans(text, k).items()
    ]
    to_best = {k: _to_best(likelihoods, text, k) for k in settings.ks}
    console.print(_tested_table(run, one_by_one, predicted, excess, to_best, settings))
    console.print("intervals: 95 %, bootstrap over images, same images and orders (docs/sets-and-exposure.md)")
    for warning in one_by_one.warnings:
        console.print(f"warning: {warning}")
    file = _save(run, one_by_one, costs, predicted, excess, to_best, settings)
    picture = file.with_suffix(".png")
    title = (
        f"{run.data.name}, {text}: costs of {costs.n_images} validation images, dots {one_by_one.n_images} test images"
    )
    draw_sets(title, predicted, tested, picture)
    console.print(f"wrote {costs_file(run.folder.path, text)}, {file.name} and {picture.name}")


def _measured(run: Run, ordering: Ordering, settings: Settings) -> SetCosts:
    """The costs of the validation split's first images: those on disk if they answer the same question."""
    path = costs_file(run.folder.path, describe(ordering))
    n = min(settings.n, len(run.data.validation))
    orders = max(1, settings.n // n) if ordering.random else 1  # of each image, where the split has few
    question = {
        "seed": settings.seed,
        "orders": orders,
        "weights": settings.weights,
        "split": "validation",
        "data": run.data.name,
        "data_fingerprint": run.data.fingerprint,
        "iteration": run.checkpoint.iteration,
    }
    if path.is_file():
        known = read_set_costs(path)
        if known.n_images == n and question.items() <= known.provenance.items():
            return known
    images, labels = run.data.validation.batch(torch.arange(n))
    with bar(f"set costs {describe(ordering)}") as progress:
        costs = measure_set_costs(
            run.model, images, labels, ordering, settings.seed, orders, budget=settings.budget, progress=progress
        )
    costs = replace(costs, provenance={**costs.provenance, **question, "environment": environment()})
    costs.write(path)
    return costs


def predictions(costs: SetCosts, ks: Sequence[int]) -> list[Predicted]:
    """Every schedule for K = 1, 2, 4, …, L and the ``ks``, by the measured costs."""
    n, cost_SE = costs.n_tokens, costs.matrix()
    wanted = sorted({2**power for power in range(n.bit_length()) if 2**power < n} | {n} | set(ks))
    best, one_by_one = best_sets(cost_SE, n), cost_of(cost_SE, [1] * n)
    rows = []
    for k in wanted:
        sizes = {"optimal": best.sizes(k)}
        for schedule in ("equal", "cosine"):
            sizes[schedule] = parse_partition(f"{_SCHEDULES[schedule]}:{k}").sizes(n).tolist()
        excess = {schedule: cost_of(cost_SE, of_k) - one_by_one for schedule, of_k in sizes.items()}
        rows.append(Predicted(k, excess, tuple(sizes["optimal"])))
    return rows


def _plans(ordering: str, k: int) -> dict[str, str]:
    """schedule: the plan of k sets."""
    return {schedule: f"{ordering}/{name}:{k}" for schedule, name in _SCHEDULES.items()}


def _likelihoods(run: Run, ordering: str, settings: Settings) -> dict[str, Likelihood]:
    """Test NLL one token at a time and under every schedule of every K: same images, orders and noise."""
    plans = [ordering, *(plan for k in settings.ks for plan in _plans(ordering, k).values())]
    out = {}
    for plan in plans:
        with bar(f"NLL {plan}") as progress:
            out[plan] = run.nll(
                plan=plan, limit=settings.n, seed=settings.seed, budget=settings.budget, progress=progress
            )
    return out


def _to_best(likelihoods: dict[str, Likelihood], ordering: str, k: int) -> dict[str, Difference]:
    """plan: the other schedules of k sets minus the best one."""
    of_k = {plan: likelihoods[plan] for plan in _plans(ordering, k).values()}
    return paired_differences(of_k, f"{ordering}/optimal:{k}")


def _predicted_table(costs: SetCosts, predicted: Sequence[Predicted]) -> Table:
    table = Table(
        title=f"parallel generation along {costs.ordering}: nats/image above one token at a time, "
        f"by the costs of {costs.n_images} validation images (lower is better)"
    )
    for column in ("K", *_SCHEDULES):
        table.add_column(column, justify="right")
    table.add_column("the best sets", overflow="fold")
    for row in predicted:
        excess = (f"{row.excess_nats[schedule]:.2f}" for schedule in _SCHEDULES)
        table.add_row(str(row.k), *excess, _brief(row.optimal_sizes))
    return table


def _brief(sizes: tuple[int, ...], most: int = 16) -> str:
    """The sizes, the middle of a long list left out."""
    if len(sizes) <= most:
        return " ".join(map(str, sizes))
    half = most // 2
    return f"{' '.join(map(str, sizes[:half]))} … {' '.join(map(str, sizes[-half:]))}"


def _tested_table(
    run: Run,
    one_by_one: Likelihood,
    predicted: Sequence[Predicted],
    excess: dict[str, Difference],
    to_best: dict[int, dict[str, Difference]],
    settings: Settings,
) -> Table:
    title = (
        f"{run.data.name} test, {one_by_one.n_images} images, {settings.weights} weights, {one_by_one.kind}: "
        f"{one_by_one.nats_per_image:.2f} ± {one_by_one.standard_error_nats:.2f} nats/image one token at a time"
    )
    table = Table(title=title)
    columns = ("plan", "nats/image above one at a time [95 %]", "p (Holm)", "predicted", "minus optimal [95 %]")
    for column in columns:
        table.add_column(column, justify="left" if column == "plan" else "right", no_wrap=column == "plan")
    foreseen = {row.k: row.excess_nats for row in predicted}
    for k in settings.ks:
        for schedule, plan in _plans(one_by_one.plan, k).items():
            other = _interval(to_best[k][plan]) if plan in to_best[k] else "—"
            cells = (_interval(excess[plan]), f"{excess[plan].p_holm:.2g}", f"{foreseen[k][schedule]:+.2f}", other)
            table.add_row(plan, *cells)
    return table


def _interval(d: Difference) -> str:
    return f"{d.nats_per_image:+.2f} [{d.interval_nats[0]:+.2f}, {d.interval_nats[1]:+.2f}]"


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

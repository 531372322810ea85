"""The costs of sets of tokens, measured on validation: what the partition ``optimal`` of a plan waits for.

B batch · L tokens
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from mar.core.errors import UserError
from mar.core.files import environment
from mar.experiments.result import PlanMap
from mar.likelihood.set_sizes import measure_set_costs
from mar.model.plans import costs_file, resolve_optimal
from mar.run import Run
from orderings import Grid, Ordering, Partition, PlanSpec, to_text
from orderings.optimal import Optimal, SetCosts, read_set_costs
from orderings.partitions import Linear

Progress = Callable[[int, int], None]


def waits(partition: Partition) -> bool:
    """Whether it is ``optimal`` by costs that its run has to measure."""
    return isinstance(partition, Optimal) and not partition.costs


def measured_along(plan: str) -> str | None:
    """The ordering, short text, along which a plan's set costs have to be measured; None: it needs none."""
    ordering, partition = PlanSpec.parse(plan)
    return to_text(ordering) if waits(partition) else None


def stand_in(partition: Partition) -> Partition:
    """As many sets, equal ones, for ``optimal`` before its costs are measured."""
    return Linear(partition.k) if isinstance(partition, Optimal) and waits(partition) else partition


def with_measured_sets(found: PlanMap, plan: str, folder: Path) -> PlanMap:
    """The map of a plan in the sets that the run in ``folder`` measured; as it is if it did not, or need not."""
    ordering, partition = PlanSpec.parse(plan)
    if not waits(partition) or not costs_file(folder, to_text(ordering)).is_file():
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
    """The costs of ``n`` validation images, in the run's folder: those on disk if they answer the same question.

    A split of fewer images gives each of them several orders where the ordering is random.

    Args:
        kind: one of the head's likelihoods; None: its default.
        weights: those that ``run`` was loaded with.
        budget: bytes of activations; None: what suits the device.
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
    images, labels = run.some("validation", n_images)
    costs = measure_set_costs(run.model, images, labels, ordering, seed, question["orders"], kind, budget, progress)
    costs = replace(costs, provenance={**costs.provenance, **question, "environment": environment()})
    costs.write(path)
    return costs

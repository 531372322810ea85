"""What schedules of K sets cost by measured costs: the best ones beside equal and cosine-shaped ones.

L tokens · K AR steps
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orderings import parse_partition
from orderings.set_costs import SetCosts, best_sets, cost_of

SCHEDULES = {"optimal": "optimal", "equal": "linear", "cosine": "cosine"}  # as tables call them: a partition's name


@dataclass(frozen=True)
class Predicted:
    """Schedules of k sets by the measured costs.

    Attributes:
        k: sets.
        excess_nats: by schedule (optimal, equal, cosine): nats per image above one token at a time.
        optimal_sizes: of the best k sets.
    """

    k: int
    excess_nats: Mapping[str, float]
    optimal_sizes: tuple[int, ...]


def predictions(costs: SetCosts, ks: Sequence[int]) -> list[Predicted]:
    """Every schedule for K = 1, 2, 4, …, L and the ``ks``.

    The best sets are chosen by the same figures that then predict their cost, so their prediction is too good by what
    they owe to noise; those of the other schedules are unbiased.
    """
    n, cost_SE = costs.n_tokens, costs.matrix()
    wanted = sorted({2**power for power in range(n.bit_length()) if 2**power < n} | {n} | set(ks))
    best, one_by_one = best_sets(cost_SE, n), cost_of(cost_SE, [1] * n)
    rows = []
    for k in wanted:
        sizes = {"optimal": best.sizes(k)}
        for schedule in ("equal", "cosine"):
            sizes[schedule] = parse_partition(f"{SCHEDULES[schedule]}:{k}").sizes(n).tolist()
        excess = {schedule: cost_of(cost_SE, of_k) - one_by_one for schedule, of_k in sizes.items()}
        rows.append(Predicted(k, excess, tuple(sizes["optimal"])))
    return rows


def plans_of(ordering: str, k: int) -> dict[str, str]:
    """schedule: the plan of k sets along ``ordering``, as short text."""
    return {schedule: f"{ordering}/{name}:{k}" for schedule, name in SCHEDULES.items()}

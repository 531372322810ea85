"""Local search over orders: swaps, rotations and segment moves, each decided by a paired race over images.

L tokens · K AR steps · M images
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mar.noise import stream
from mar.order_search.costs import Evaluator, Ledger

_ATTEMPTS = 100  # before an order counts as one without neighbours
_FIRST = 16  # images of a race's first stretch; each next one doubles them
_CLEAR = 2.0  # standard errors below zero at which a change is an improvement
_ROUNDING = 1e-5  # nats per image: what differs by less is the same


@dataclass(frozen=True)
class Race:
    """How a change fared: the mean difference in nats per image on the images that it took to tell."""

    accepted: bool
    nats: float
    images: int


def propose(evaluator: Evaluator, order_L: torch.Tensor, seed: int, number: int) -> torch.Tensor | None:
    """Proposal ``number``: two tokens swapped, three rotated, or a segment moved; None if all orders are alike.

    Near changes touch few steps and are cheap, far ones are needed too: ``mostly_small`` draws their distances. Swaps
    and rotations choose sets before tokens, so that small sets, whose tokens matter most, have their share. The order
    within a set is free, so sets are shuffled before a segment moves. Changes within a set are none, and drawn again.
    """
    step_L, before_L = evaluator.step_of_rank_L, evaluator.steps(order_L)
    key = stream(seed, "order-search/proposal", torch.tensor([number]))
    for attempt in range(_ATTEMPTS):
        kind, *place = key.at(draw=attempt).uniform(8)[0].tolist()
        if kind < 2.0 / 3.0:
            changed_L = rotated(order_L, ranks_of_sets(step_L, 2 if kind < 1.0 / 3.0 else 3, place), place[-1] < 0.5)
        else:
            free_L = key.at("within sets", draw=attempt).uniform(len(order_L))[0] + step_L
            changed_L = moved(order_L[free_L.argsort()], *place[:3])
        if not torch.equal(evaluator.steps(changed_L), before_L):
            return changed_L
    return None


def ranks_of_sets(step_L: torch.Tensor, count: int, place: Sequence[float]) -> list[int]:
    """The ranks of one token in each of ``count`` sets (or all, if fewer), at ``mostly_small`` distances in steps.

    ``place``: 2 count uniforms or more.
    """
    size_K = step_L.bincount()
    count, steps = min(count, len(size_K)), [0]
    for further in range(1, count):  # the sets after this one need a step each
        steps.append(steps[-1] + mostly_small(place[further], len(size_K) - 1 - steps[-1] - (count - 1 - further)))
    first = int(place[0] * (len(size_K) - steps[-1]))
    start_K = size_K.cumsum(0) - size_K
    return [
        int(start_K[first + step]) + int(uniform * int(size_K[first + step]))
        for step, uniform in zip(steps, place[count:], strict=False)
    ]


def rotated(order_L: torch.Tensor, ranks: list[int], backwards: bool) -> torch.Tensor:
    """The tokens at ``ranks`` take each other's places in turn; two are swapped."""
    changed_L = order_L.clone()
    changed_L[ranks] = order_L[ranks].roll(-1 if backwards else 1)
    return changed_L


def moved(order_L: torch.Tensor, where: float, long: float, far: float) -> torch.Tensor:
    """Two neighbouring segments exchanged, which moves either past the other; their lengths are ``mostly_small``."""
    length = len(order_L)
    first = mostly_small(long, length - 1)
    second = mostly_small(far, length - first)
    start = int(where * (length - first - second + 1))
    middle, end = start + first, start + first + second
    return torch.cat([order_L[:start], order_L[middle:end], order_L[start:middle], order_L[end:]])


def mostly_small(uniform: float, largest: int) -> int:
    """1..``largest`` from a uniform in [0, 1): the integer part of a number d of density ∝ 1/d².

    A change that touches d steps costs d, so as much is spent on each doubling of d.
    """
    return min(largest, int(1.0 / (1.0 - uniform * largest / (largest + 1))))


def race(ledger: Ledger, changed_L: torch.Tensor, seed: int, number: int) -> Race:
    """Compare an order with the ledger's on the same images, freshly shuffled, in stretches of doubling length.

    The change is rejected as soon as its mean difference is not below zero, and accepted as soon as it is clearly so,
    by two standard errors; on an accepted change the ledger moves. Only touched steps are computed.
    """
    evaluator, n = ledger.evaluator, len(ledger.image_N)
    touched_K = evaluator.touched(ledger.order_L, changed_L)
    shuffled_N = stream(seed, "order-search/images", torch.tensor([number])).uniform(n)[0].argsort()
    new_MK, seen = torch.zeros(0, evaluator.n_steps, dtype=torch.float64), 0
    while True:
        stretch = shuffled_N[seen : max(_FIRST, 2 * seen)]
        new_MK = torch.cat([new_MK, evaluator.nats(changed_L, ledger.image_N[stretch], touched_K)])
        seen += len(stretch)
        difference_M = new_MK.sum(1) - ledger.nats(shuffled_N[:seen], touched_K)
        mean, error = float(difference_M.mean()), float(difference_M.std()) / math.sqrt(seen)
        if mean < -max(_CLEAR * error, _ROUNDING):
            ledger.move(changed_L, shuffled_N[:seen], new_MK)
            return Race(True, mean, seen)
        if mean >= 0.0 or seen == n:
            return Race(False, mean, seen)

"""Orders and changes of orders: their nats step by step, a greedy order, and local search by paired races over images.

N images · L tokens · K AR steps · M some of the images
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mar.core.noise import stream
from mar.likelihood.chain import image_noise, token_log_prob
from mar.model.model import Model
from mar.model.plans import sizes_plan
from orderings import Partition, Plan, inverse


class Evaluator:
    """Nats of images under fixed orders, cut into the sets of one partition.

    Image k, its dequantisation and the noise of a bound are those of ``mar.likelihood.chain.score`` for the same seed:
    all orders are compared on the same images and noise.

    Attributes:
        step_of_rank_L: the AR step of each rank.
        rows: rows that went through the network so far.
    """

    def __init__(
        self, model: Model, images: torch.Tensor, labels: torch.Tensor | None, partition: Partition, seed: int = 0,
        kind: str | None = None, budget: int | None = None,
    ) -> None:  # fmt: skip
        model.tokenizer.require_one_length("a search for orders")
        self.device = next(model.parameters()).device
        noise = image_noise(seed, len(images), self.device)
        self.model, self.kind, self.budget, self.rows = model, kind, budget, 0
        self.token = model.tokenizer.encode(images.to(self.device), noise.at("dequantise"))
        self.label_N = torch.full((len(images),), -1) if labels is None else labels
        self.label_N, self.noise = self.label_N.to(self.device), noise.at("head")
        self.step_of_rank_L = sizes_plan(partition, self.token.shape[1], 1).step_BL[0]

    @property
    def n_steps(self) -> int:
        return int(self.step_of_rank_L[-1]) + 1

    def steps(self, order_L: torch.Tensor) -> torch.Tensor:
        """step_L of an order, which is the tokens as they are generated."""
        return self.step_of_rank_L[inverse(order_L)]

    def nats(self, order_L: torch.Tensor, image_N: torch.Tensor, wanted_K: torch.Tensor) -> torch.Tensor:
        """nats_NK (float64, on the CPU): -log p of each wanted step of some images; 0 in the other steps."""
        nats_NL = self._token_nats(inverse(order_L), self.steps(order_L), image_N, wanted_K)
        nats_NK = torch.zeros(len(image_N), self.n_steps, dtype=torch.float64)
        return nats_NK.index_add_(1, self.steps(order_L), nats_NL)

    def candidates(self, order_L: torch.Tensor, image_N: torch.Tensor, step: int) -> torch.Tensor:
        """nats_L (float64): mean -log p of each token given the order's first ``step`` sets; 0 for known tokens."""
        step_L = self.steps(order_L).clamp(max=step)  # every unknown token is asked for at once
        wanted_K = torch.arange(step + 1) == step
        return self._token_nats(inverse(order_L), step_L, image_N, wanted_K).mean(0)

    def touched(self, before_L: torch.Tensor, after_L: torch.Tensor) -> torch.Tensor:
        """wanted_K (bool): the steps whose nats differ between two orders.

        A token that moves from step a to step b changes only the steps between the two: before both it is unknown under
        either order, after both known. A network that is not ``order_invariant`` may depend on the order of the known
        tokens, too: then every step from the first change on differs.
        """
        before_L, after_L = self.steps(before_L), self.steps(after_L)
        low_L, high_L = torch.minimum(before_L, after_L), torch.maximum(before_L, after_L)
        moved_L, step_K = before_L != after_L, torch.arange(self.n_steps)
        if not self.model.network.order_invariant:
            high_L = torch.full_like(high_L, self.n_steps)
        return (moved_L & (low_L <= step_K[:, None]) & (step_K[:, None] <= high_L)).any(1)

    def _token_nats(
        self, rank_L: torch.Tensor, step_L: torch.Tensor, image_N: torch.Tensor, wanted_K: torch.Tensor
    ) -> torch.Tensor:
        index_N, rows = image_N.to(self.device), len(image_N)
        plan = Plan(rank_L.expand(rows, -1), step_L.expand(rows, -1)).to(self.device)
        found = token_log_prob(
            self.model, self.token[index_N], plan, self.label_N[index_N], self.noise.rows(index_N), self.kind,
            self.budget, drawn_BK=wanted_K.expand(rows, -1).to(self.device),
        )  # fmt: skip
        self.rows += found.forward_rows
        return -found.nats_BL.cpu().double()


class Ledger:
    """The per-step nats of the images ``image_N`` under the order ``order_L``, computed when first asked for."""

    def __init__(self, evaluator: Evaluator, image_N: torch.Tensor, order_L: torch.Tensor) -> None:
        self.evaluator, self.image_N, self.order_L = evaluator, image_N, order_L
        self._nats_NK = torch.zeros(len(image_N), evaluator.n_steps, dtype=torch.float64)
        self._known_NK = torch.zeros(self._nats_NK.shape, dtype=torch.bool)

    def nats(self, place_M: torch.Tensor, wanted_K: torch.Tensor) -> torch.Tensor:
        """nats_M (float64): summed over the wanted steps, of the images at places ``place_M`` of ``image_N``."""
        missing_K = wanted_K & ~self._known_NK[place_M].all(0)
        if self.evaluator.model.network.one_pass:
            missing_K = torch.ones_like(wanted_K)  # they cost no more
        late_M = place_M[~self._known_NK[place_M][:, wanted_K].all(1)]
        if len(late_M):
            self._write(late_M, missing_K, self.evaluator.nats(self.order_L, self.image_N[late_M], missing_K))
        return self._nats_NK[place_M][:, wanted_K].sum(1)

    def total(self) -> torch.Tensor:
        """nats_N (float64) of every image."""
        return self.nats(torch.arange(len(self.image_N)), torch.ones(self.evaluator.n_steps, dtype=torch.bool))

    def move(self, order_L: torch.Tensor, *known: torch.Tensor) -> None:
        """Change the order; ``known``: place_M and nats_MK, the new nats of the touched steps of some images."""
        touched_K = self.evaluator.touched(self.order_L, order_L)
        self.order_L = order_L
        self._known_NK[:, touched_K] = False
        if known:
            self._write(known[0], touched_K, known[1])

    def _write(self, place_M: torch.Tensor, wanted_K: torch.Tensor, nats_MK: torch.Tensor) -> None:
        step_K = wanted_K.nonzero()[:, 0]
        self._nats_NK[place_M[:, None], step_K] = nats_MK[:, step_K]
        self._known_NK[place_M[:, None], step_K] = True


def greedy(
    evaluator: Evaluator, image_N: torch.Tensor, lowest: bool = True, end: float = math.inf
) -> torch.Tensor | None:
    """Return order_L: each next set holds the unknown tokens of lowest (or highest) mean -log p given the sets before.

    The mean over images of -log p(x_l | known) is the cross-entropy of the model's conditional at l, an estimate of the
    conditional entropy for every head that has a likelihood. Ties go to the first token. The whole order costs as much
    as one scoring of the images. None: the time ``end`` (monotonic) has passed.
    """
    order_L = torch.arange(len(evaluator.step_of_rank_L))
    for step in range(evaluator.n_steps):
        if time.monotonic() >= end:
            return None
        known = int((evaluator.step_of_rank_L < step).sum())
        nats_L = evaluator.candidates(order_L, image_N, step)
        rest = order_L[known:].sort().values
        by_nats = torch.argsort(nats_L[rest] if lowest else -nats_L[rest], stable=True)
        order_L = torch.cat([order_L[:known], rest[by_nats]])  # the set, and after it what remains
    return order_L


_ATTEMPTS = 100  # before an order counts as one without neighbours
_FIRST = 16  # images of a race's first stretch; each next one doubles them
_CLEAR = 2.0  # standard errors below zero at which a change is an improvement
_ROUNDING = 1e-5  # nats per image: smaller differences count as none


@dataclass(frozen=True)
class Race:
    """How a change fared: the mean difference in nats per image on the images that it took to tell."""

    accepted: bool
    nats: float
    images: int


def propose(evaluator: Evaluator, order_L: torch.Tensor, seed: int, number: int) -> torch.Tensor | None:
    """Return proposal ``number``: two tokens swapped, three rotated, or a segment moved; None if all orders are alike.

    Near changes touch few steps and are cheap, far ones are needed too: ``mostly_small`` draws their distances. Swaps
    and rotations choose sets before tokens, so that small sets, whose tokens matter most, have their share. Sets are
    shuffled before a segment moves, since the order within a set is free. Changes within a set are drawn again.
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
    """Return the ranks of one token in each of ``count`` sets (or all, if fewer), ``mostly_small`` distances apart;
    ``place``: 2 count uniforms or more."""
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

    The change is rejected as soon as its mean difference is not below zero, and accepted (the ledger moves) as soon as
    it is below by two standard errors. Only touched steps are computed.
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

"""What an order costs, step by step, and which steps a change of the order touches.

N images · L tokens · K AR steps
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mar.likelihood.adaptive import sizes_plan
from mar.likelihood.chain import token_log_prob
from mar.model import Model
from mar.noise import stream
from orderings import Partition, Plan, inverse


class Evaluator:
    """Nats of images under fixed orders, cut into the sets of one partition.

    Image k, its dequantisation and the noise of a bound are those of ``mar.likelihood.score.score`` for the same seed:
    all orders are compared on the same images and noise.

    Attributes:
        step_of_rank_L: the AR step of each rank.
        rows: rows that went through the network so far.
        on_rows: called with the number of rows just done.
    """

    def __init__(
        self,
        model: Model,
        images: torch.Tensor,
        labels: torch.Tensor | None,
        partition: Partition,
        seed: int = 0,
        kind: str | None = None,
        budget: int | None = None,
    ) -> None:
        model.tokenizer.require_one_length("a search for orders")
        self.device = next(model.parameters()).device
        noise = stream(seed, "nll", len(images), self.device)
        self.model, self.kind, self.budget, self.rows = model, kind, budget, 0
        self.on_rows: Callable[[int], None] | None = None
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
        """nats_L (float64): the mean over some images of -log p of each token given the order's first ``step`` sets.

        Entries of known tokens are 0.
        """
        step_L = self.steps(order_L).clamp(max=step)  # every unknown token is asked for at once
        wanted_K = torch.arange(step + 1) == step
        return self._token_nats(inverse(order_L), step_L, image_N, wanted_K).mean(0)

    def touched(self, before_L: torch.Tensor, after_L: torch.Tensor) -> torch.Tensor:
        """wanted_K (bool): the steps whose nats differ between two orders.

        A step's nats follow from its tokens and those known before it. A token that moves from step a to step b changes
        no others than the steps between the two: before both it is unknown under either order, after both it is known.
        A network that is not orderless may also see in which order the known tokens came: everything from the first
        change on.
        """
        before_L, after_L = self.steps(before_L), self.steps(after_L)
        low_L, high_L = torch.minimum(before_L, after_L), torch.maximum(before_L, after_L)
        moved_L, step_K = before_L != after_L, torch.arange(self.n_steps)
        if not self.model.network.orderless:
            high_L = torch.full_like(high_L, self.n_steps)
        return (moved_L & (low_L <= step_K[:, None]) & (step_K[:, None] <= high_L)).any(1)

    def _token_nats(
        self, rank_L: torch.Tensor, step_L: torch.Tensor, image_N: torch.Tensor, wanted_K: torch.Tensor
    ) -> torch.Tensor:
        index_N, rows = image_N.to(self.device), len(image_N)
        plan = Plan(rank_L.expand(rows, -1), step_L.expand(rows, -1)).to(self.device)
        found = token_log_prob(
            self.model, self.token[index_N], plan, self.label_N[index_N], self.noise.rows(index_N), self.kind,
            self.budget, self.on_rows, drawn_BK=wanted_K.expand(rows, -1).to(self.device),
        )  # fmt: skip
        self.rows += found.forward_rows
        return -found.nats_BL.double().cpu()


class Ledger:
    """The per-step nats of some images under the current order, computed when they are first asked for.

    Attributes:
        image_N: their numbers.
        order_L: the current order.
    """

    def __init__(self, evaluator: Evaluator, image_N: torch.Tensor, order_L: torch.Tensor) -> None:
        self.evaluator, self.image_N, self.order_L = evaluator, image_N, order_L
        self._nats_NK = torch.zeros(len(image_N), evaluator.n_steps, dtype=torch.float64)
        self._known_NK = torch.zeros(self._nats_NK.shape, dtype=torch.bool)

    def nats(self, place_M: torch.Tensor, wanted_K: torch.Tensor) -> torch.Tensor:
        """nats_M (float64): summed over the wanted steps, of the images at places ``place_M`` of ``image_N``."""
        if self.evaluator.model.network.one_pass:
            missing_K = torch.ones_like(wanted_K)  # they cost no more
        else:
            missing_K = wanted_K & ~self._known_NK[place_M].all(0)
        late_M = place_M[~self._known_NK[place_M][:, wanted_K].all(1)]
        if len(late_M):
            self._write(late_M, missing_K, self.evaluator.nats(self.order_L, self.image_N[late_M], missing_K))
        return self._nats_NK[place_M][:, wanted_K].sum(1)

    def total(self) -> torch.Tensor:
        """nats_N (float64) of every image."""
        return self.nats(torch.arange(len(self.image_N)), torch.ones(self.evaluator.n_steps, dtype=torch.bool))

    def move(
        self, order_L: torch.Tensor, place_M: torch.Tensor | None = None, nats_MK: torch.Tensor | None = None
    ) -> None:
        """Change the order; ``nats_MK`` are the new nats of the touched steps of some images, where known."""
        touched_K = self.evaluator.touched(self.order_L, order_L)
        self.order_L = order_L
        self._known_NK[:, touched_K] = False
        if place_M is not None and nats_MK is not None:
            self._write(place_M, touched_K, nats_MK)

    def _write(self, place_M: torch.Tensor, wanted_K: torch.Tensor, nats_MK: torch.Tensor) -> None:
        step_K = wanted_K.nonzero()[:, 0]
        self._nats_NK[place_M[:, None], step_K] = nats_MK[:, step_K]
        self._known_NK[place_M[:, None], step_K] = True

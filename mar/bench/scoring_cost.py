"""What an exact likelihood costs, against the forward passes that it cannot do without.

B batch · L tokens · K AR steps · R (image, step) rows

A network that needs a pass for each step cannot score an image with less than K of them; one that returns every
conditional at once needs one. The same rows go through the network alone, in the best of a few batch sizes, and
through ``token_log_prob``, which batches them to its memory budget, runs the head and adds up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from mar.bench.contenders import Inputs
from mar.bench.measure import CLOCKS, interleave, synchronise
from mar.bench.memory import tensor_peak
from mar.data.base import spread
from mar.likelihood.chain import CPU_BUDGET, GPU_BUDGET, token_log_prob
from mar.model import Model
from mar.noise import stream
from orderings import Plan

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TRIED = 256  # rows that every batch size is tried on


@dataclass(frozen=True)
class ScoringCost:
    """Exact NLL of a batch of images against its forward passes alone.

    Attributes:
        images: B.
        tokens: L.
        passes_per_image: K, or 1 for a one-pass network.
        best_batch: rows at a time with which the forward passes alone are fastest.
        nll_seconds, forward_seconds: of each round.
        ratio: the median over rounds of NLL seconds over forward seconds.
        budget_bytes: of activations, given to the likelihood.
        peak_bytes: most memory of the tensors that the likelihood made, at any one time.
    """

    images: int
    tokens: int
    passes_per_image: int
    best_batch: int
    nll_seconds: tuple[float, ...]
    forward_seconds: tuple[float, ...]
    ratio: float
    budget_bytes: int
    peak_bytes: int


def scoring_cost(model: Model, inputs: Inputs, seconds: float, budget: int | None = None) -> ScoringCost:
    """Measure both in alternating rounds, about ``seconds`` and at least three rounds."""
    setting = inputs.setting
    device = setting.device
    budget = budget or (CPU_BUDGET if device.type == "cpu" else GPU_BUDGET)
    model.eval()
    example, plan = inputs.example(0), inputs.plan(0)
    noise = stream(0, "bench/nll", inputs.batch, device)

    def nll(_: int) -> None:
        with setting.autocast():
            token_log_prob(model, example.token, plan, example.label_B, noise, budget=budget)

    passes = _Passes(model, example.token, plan, example.label_B)
    best = min((b for b in BATCHES if b <= len(passes)), key=lambda b: _row_seconds(passes, b, inputs))

    def forward(_: int) -> None:
        with setting.autocast():
            passes.run(best)

    nll(0)
    with tensor_peak(device) as peak:
        nll(0)
    times = interleave({"nll": nll, "forward": forward}, seconds, device, setting.clock)
    ratio = median(a / b for a, b in zip(times["nll"], times["forward"], strict=True))
    return ScoringCost(
        inputs.batch, len(inputs.grid), len(passes) // inputs.batch, best, times["nll"], times["forward"], ratio,
        budget, peak.bytes,
    )  # fmt: skip


class _Passes:
    """The rows that the network must see, ordered by step so that those of a batch know about equally many tokens."""

    def __init__(self, model: Model, token: torch.Tensor, plan: Plan, label_B: torch.Tensor) -> None:
        self.model, self.token, self.plan = model, token, plan
        self.condition_BC = model.condition(label_B).detach()
        n_steps_B = plan.n_steps_B
        if model.network.one_pass:
            n_steps_B = torch.ones_like(n_steps_B)
        steps = torch.arange(int(n_steps_B.max()), device=n_steps_B.device)
        self.step_R, self.image_R = (steps[:, None] < n_steps_B).nonzero(as_tuple=True)

    def __len__(self) -> int:
        return len(self.image_R)

    @torch.no_grad()
    def run(self, batch: int, wanted: int | None = None) -> None:
        """Every row, or so many of all steps, ``batch`` at a time."""
        for rows in spread(len(self), wanted).to(self.image_R.device).split(batch):
            image, step = self.image_R[rows], self.step_R[rows]
            step_RL = self.plan.step_BL[image]
            target_RL = self.plan.scored_BL[image] if self.model.network.one_pass else step_RL == step[:, None]
            self.model.context(self.token[image], step_RL, self.condition_BC[image], target_RL)


def _row_seconds(passes: _Passes, batch: int, inputs: Inputs) -> float:
    """Seconds per row at this batch size, the better of two tries."""
    clock: Callable[[], float] = CLOCKS[inputs.setting.clock]
    best = float("inf")
    for _ in range(2):
        synchronise(inputs.setting.device)
        start = clock()
        with inputs.setting.autocast():
            passes.run(batch, _TRIED)
        synchronise(inputs.setting.device)
        best = min(best, (clock() - start) / min(_TRIED, len(passes)))
    return best

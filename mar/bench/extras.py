"""Three further measurements: the gain of a cache in generation, the cost of a second stream, the cost of a likelihood.

B batch · L tokens · K AR steps · P slots · D width · M gathered tokens · R (image, step) rows

Cache: a whole generation with the cache, against a full pass over the known tokens at each step. Both sample the same
tokens from the same noise; the share of equal tokens is reported. Full passes for thousands of steps take too long: of
more than ``_MEASURED`` steps that many are run, each in the middle of an equal share of the generation, and their
seconds are scaled up (exact if a pass costs in proportion to the known tokens).

Second stream: training passes (forward and backward) of three Transformers with the same weights, in alternating
rounds:

- ``two streams``: ours, contents and queries over shared keys and values, in any order;
- ``gpt``: contents only, L slots; slot t predicts the next token of one fixed order;
- ``position tokens``: RandAR (Pang et al. 2024, arXiv 2412.01827), one stream with a position token before each token,
  2 L slots that all are keys and queries.

The single streams serve as cost references: their blocks see the plan's contents in raster order.

Likelihood: a network that needs one pass per step scores an image with K passes, a one-pass network with one. The same
rows go through the network alone, at the best of a few batch sizes, and through ``token_log_prob``, which batches them
to its memory budget and runs the head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from mar.bench.contenders import Inputs
from mar.bench.measure import CLOCKS, footprint, interleave, synchronise, tensor_peak
from mar.core.errors import Unsupported
from mar.core.noise import stream
from mar.data.base import evenly_spaced
from mar.likelihood.chain import default_budget, n_pairs, pairs, token_log_prob
from mar.model.model import Model
from mar.networks.causal_transformer import CausalTransformer, Slots
from mar.sampling.samplers import generate
from orderings import Plan

_MEASURED = 64  # full passes of a round


@dataclass(frozen=True)
class CacheGain:
    """A batch generated with the network's cache and by full passes.

    Attributes:
        batch: B.
        steps: K, of one generation.
        measured_steps: steps run without a cache in each round.
        cached_seconds: of a whole generation, round by round.
        full_seconds: of a whole generation by full passes, round by round.
        ratios: full over cached, round by round.
        ratio: their median.
        same_tokens: share of tokens that full passes and the cached generation sample alike.
    """

    batch: int
    steps: int
    measured_steps: int
    cached_seconds: tuple[float, ...]
    full_seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    ratio: float
    same_tokens: float


def cache_gain(model: Model, inputs: Inputs, seconds: float) -> CacheGain:
    """Measure both in alternating rounds, about ``seconds`` and at least three rounds."""
    model.eval()
    plan, label_B = inputs.plan(0), inputs.labels(0)
    noise = stream(0, "bench/sample", inputs.batch, inputs.setting.device)
    steps = int(plan.n_steps_B.max())
    chosen = middles(steps, min(steps, _MEASURED))
    generated: list[torch.Tensor] = []
    same: list[torch.Tensor] = []

    def cached(_: int) -> None:
        with inputs.setting.autocast():
            generated.append(generate(model, plan, label_B, noise))

    @torch.no_grad()
    def full(_: int) -> None:
        token = generated[0]
        with inputs.setting.autocast():
            condition_BC, embedded_BLD = model.condition(label_B), model.embedding(token)
            for step in chosen:
                target_BL = plan.target(step)
                z_MD = model.network(embedded_BLD, plan.step_BL, condition_BC, target_BL)
                x_M = model.head.sample(z_MD, noise.tokens(*target_BL.nonzero(as_tuple=True)))
                same.append(x_M == token[target_BL])

    cached(0)
    times = interleave({"cached": cached, "full": full}, seconds, inputs.setting.device, inputs.setting.clock)
    whole = tuple(t * steps / len(chosen) for t in times["full"])
    ratios = tuple(a / b for a, b in zip(whole, times["cached"], strict=True))
    agree = float(torch.cat([s.flatten() for s in same]).double().mean())
    return CacheGain(inputs.batch, steps, len(chosen), times["cached"], whole, ratios, median(ratios), agree)


def middles(steps: int, count: int) -> list[int]:
    """Return the middle steps of ``count`` equal shares of 0..steps-1."""
    return [(2 * i + 1) * steps // (2 * count) for i in range(count)]


@dataclass(frozen=True)
class Stream:
    """One way to predict every token of a batch.

    Attributes:
        name: "two streams", "gpt" or "position tokens".
        flops_per_image: matrix products and attention, backward pass included.
        seconds: of each round.
        cost: median over rounds of these seconds over those of "gpt" in the same round.
    """

    name: str
    flops_per_image: float
    seconds: tuple[float, ...]
    cost: float


def stream_costs(model: Model, inputs: Inputs, seconds: float) -> tuple[Stream, ...]:
    """Measure the three, about ``seconds`` and at least three rounds.

    Raises:
        Unsupported: the network is not the causal Transformer.
    """
    network, device = model.network, inputs.setting.device
    if not isinstance(network, CausalTransformer):
        raise Unsupported("--only streams is of network.kind=causal-transformer")
    model.train()
    example, plan = inputs.example(0), inputs.plan(0)
    condition_BC = model.condition(example.label_B).detach()
    raw_BLD = model.embedding(example.token).detach()
    L = raw_BLD.shape[1]

    def ours() -> torch.Tensor:
        return network(raw_BLD, plan.step_BL, condition_BC, plan.scored_BL)

    def single(slots: int) -> torch.Tensor:
        x_BPD = raw_BLD if slots == L else raw_BLD.repeat_interleave(2, dim=1)
        sees_BPP = torch.ones(slots, slots, dtype=torch.bool, device=device).tril().expand(len(x_BPD), -1, -1)
        blocks: Any = network.blocks
        for block in blocks:
            x_BPD = block(x_BPD, Slots(slots, sees_BPP, None))
        return network.norm(x_BPD if slots == L else x_BPD[:, ::2]).flatten(0, 1)

    passes: dict[str, Callable[[], torch.Tensor]] = {
        "two streams": ours, "gpt": lambda: single(L), "position tokens": lambda: single(2 * L),
    }  # fmt: skip

    def train(name: str) -> None:
        with inputs.setting.autocast():
            passes[name]().square().mean().backward()
        model.zero_grad(set_to_none=True)

    flops = {}
    for name in passes:
        with footprint(device) as found:
            train(name)
        flops[name] = found.flops / inputs.batch
    works = {name: (lambda _, name=name: train(name)) for name in passes}
    times = interleave(works, seconds, device, inputs.setting.clock)
    return tuple(
        Stream(name, flops[name], t, median(a / b for a, b in zip(t, times["gpt"], strict=True)))
        for name, t in times.items()
    )


BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TRIED = 256  # rows for the trial of each batch size


@dataclass(frozen=True)
class ScoringCost:
    """Exact NLL of a batch of images, compared with its forward passes alone.

    Attributes:
        images: B.
        tokens: L.
        passes_per_image: K, or 1 for a one-pass network.
        best_batch: batch size, in rows, of the fastest forward passes.
        nll_seconds, forward_seconds: of each round.
        ratio: the median over rounds of NLL seconds over forward seconds.
        budget_bytes: of activations, given to the likelihood.
        peak_bytes: peak memory of the likelihood's tensors.
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
    budget = budget or default_budget(device)
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
    """The rows of the network, ordered by step so that the rows of a batch have about as many known tokens."""

    def __init__(self, model: Model, token: torch.Tensor, plan: Plan, label_B: torch.Tensor) -> None:
        self.model, self.token, self.plan, self.label_B = model, token, plan, label_B

    def __len__(self) -> int:
        return n_pairs(self.plan, self.model.network.one_pass)

    @torch.no_grad()
    def run(self, batch: int, wanted: int | None = None) -> None:
        """Run every row, or ``wanted`` rows spread over all steps, ``batch`` at a time."""
        chosen_R = evenly_spaced(len(self), wanted).to(self.token.device)
        for _ in pairs(self.model, self.token, self.plan, self.label_B, chosen_R=chosen_R, rows=batch):
            pass


def _row_seconds(passes: _Passes, batch: int, inputs: Inputs) -> float:
    """Return the seconds per row at this batch size, the better of two tries."""
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

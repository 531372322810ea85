"""What a cache of generation saves: a whole generation with it, against a full pass over what is known for each step.

B batch · L tokens · K AR steps · D context width · M gathered tokens

Both draw the same tokens from the same noise, and it is counted whether they do. A full pass for each of thousands of
steps would take too long to measure: of more than ``_MEASURED`` steps so many are run, each in the middle of an equal
share of the generation, and their seconds count for all (exact where a pass costs in proportion to what is known).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import torch

from mar.bench.contenders import Inputs
from mar.bench.measure import interleave
from mar.model import Model
from mar.noise import stream
from mar.sampling.generate import generate

_MEASURED = 64  # full passes of a round


@dataclass(frozen=True)
class CacheGain:
    """A batch generated with the network's cache, and by full passes.

    Attributes:
        batch: B.
        steps: K, of one generation.
        measured_steps: how many of them were run without a cache in each round.
        cached_seconds: of a whole generation, round by round.
        full_seconds: of a whole generation by full passes, round by round.
        ratios: full over cached, round by round.
        ratio: their median.
        same_tokens: share of the tokens drawn by full passes that are those of the cached generation.
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
    """The middle steps of ``count`` equal shares of 0..steps-1."""
    return [(2 * i + 1) * steps // (2 * count) for i in range(count)]

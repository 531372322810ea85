"""What the causal Transformer's second stream costs, against single streams of the same blocks.

B batch · L tokens · P slots · D width · M gathered tokens

Training passes (forward and backward) of three Transformers with the same weights, in alternating rounds:

- ``two streams``: ours, contents and queries over shared keys and values, in any order;
- ``gpt``: contents alone, L slots; slot t predicts the next token of one order, known when the network is built;
- ``position tokens``: RandAR (Pang et al. 2024, arXiv 2412.01827), one stream in which a token that holds the next
  position stands before each token, 2 L slots that all are keys and queries.

The single streams are for the cost alone: their blocks see the plan's contents in raster order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from mar.bench.contenders import Inputs
from mar.bench.measure import footprint, interleave
from mar.errors import Unsupported
from mar.model import Model
from mar.networks.causal_transformer import CausalTransformer
from mar.networks.two_stream import Slots


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

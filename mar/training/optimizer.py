"""The optimiser, its learning rate as a pure function of the iteration, and averaged weights (EMA, in float32)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mar.config import Train
from mar.core.errors import UserError
from mar.core.processes import local_shards, shard_like
from mar.heads.base import Head


class EMA:
    """Exponential moving average. The decay after n updates is min(decay, (1 + n) / (10 + n)), for short runs.

    Sharded weights are averaged shard by shard.
    """

    def __init__(self, model: nn.Module, decay: float, sharded: bool = False) -> None:
        self.decay, self.sharded = decay, sharded
        self.weights = {name: p.detach().float().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, n: int) -> None:
        decay = min(self.decay, (1 + n) / (10 + n))
        averages, current = list(self.weights.values()), [p.detach() for p in model.parameters()]
        if self.sharded:
            averages, current = local_shards(averages), local_shards(current)
        torch._foreach_lerp_(averages, [p.float() for p in current], 1.0 - decay)

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Load saved averages (full tensors)."""
        for name, average in self.weights.items():
            average.copy_(shard_like(weights[name], average))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights inside the block, and its own weights after it."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)


def learning_rate(train: Train, iteration: int, length: int) -> float:
    """Return the learning rate of a training of ``length``: linear warm-up, then constant or a half cosine; with
    ``until=plateau`` constant, then a linear decay over the last fifth."""
    s = train.schedule
    rate = train.learning_rate * min(1.0, (iteration + 1) / max(1, s.warmup))
    if train.until == "plateau":
        start = length * 4 // 5
        return rate * (1.0 - (1.0 - s.final) * max(0, iteration - start) / (length - start))
    if s.kind == "constant":
        return rate
    done = min(1.0, max(0, iteration - s.warmup) / max(1, length - s.warmup))
    return rate * (s.final + (1.0 - s.final) * 0.5 * (1.0 + math.cos(math.pi * done)))


def make_optimizer(model: nn.Module, train: Train) -> torch.optim.Optimizer:
    """Return AdamW. Biases, norms, single vectors and a head that is not ``decayed`` have no weight decay.

    ``train.decayed=published`` decays the mask token and the unconditional embedding, too: matrices of one row in the
    code of Li et al. 2024.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    head = getattr(model, "head", None)
    exempt = set(head.parameters()) if isinstance(head, Head) and not head.decayed else set()
    named = dict(model.named_parameters()) if train.decayed == "published" else {}
    rows = {p for name, p in named.items() if name in ("null", "network.mask_token")}
    decays = [(p.ndim > 1 or p in rows) and p not in exempt for p in parameters]
    groups = [
        {"params": [p for p, own in zip(parameters, decays, strict=True) if own == decayed], "weight_decay": decay}
        for decayed, decay in ((True, train.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=train.betas, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a saved state (full tensors) into the optimiser, which may hold shards.

    Raises:
        UserError: the parameters are grouped differently, as in earlier versions.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]  # as state_dict numbers them
    if [len(group["params"]) for group in state["param_groups"]] != [len(g["params"]) for g in optimizer.param_groups]:
        raise UserError(
            "the checkpoint's optimiser decays other weights than this version does: it can be sampled from and "
            "scored, but not trained further"
        )
    shares = {
        number: {key: shard_like(value, parameters[number]) for key, value in of.items()}
        for number, of in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shares})

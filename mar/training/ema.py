"""Exponential moving average of the weights, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from mar.distributed import shared_out


class EMA:
    """``decay`` is reached gradually, min(decay, (1 + n) / (10 + n)) after n updates, so that short runs have one.

    Of sharded weights it averages this process's shares.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().float().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, n: int) -> None:
        decay = min(self.decay, (1 + n) / (10 + n))
        current = [_local(p.detach()).float() for _, p in model.named_parameters()]
        torch._foreach_lerp_([_local(average) for average in self.weights.values()], current, 1.0 - decay)

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Go on from saved averages, which are whole."""
        for name, average in self.weights.items():
            average.copy_(shared_out(weights[name], average))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model computes with the averaged weights inside the block, and has its own again after it."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._copy(model, self.weights)
        try:
            yield
        finally:
            self._copy(model, own)

    @staticmethod
    @torch.no_grad()
    def _copy(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
        for name, p in model.named_parameters():
            p.copy_(weights[name])


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

"""The embedding of conditions that are vectors: what networks read in place of an embedded class.

A tensor of conditions takes the place of one of classes wherever labels go: float (B, E), or (B, T, E). A vector of NaN
is absent; classes below 0, and a row without any vector, are the null condition.

B batch · T vectors of a sequence · E width of a vector · C condition width
"""

from __future__ import annotations

import math

import torch
from torch import nn

from mar.core.errors import UserError
from mar.core.spec import Conditions


def absent(label: torch.Tensor) -> torch.Tensor:
    """drop_B (bool): the rows of classes or conditions that have none."""
    return label.isnan().flatten(1).all(1) if label.is_floating_point() else label < 0


class VectorCondition(nn.Module):
    """A linear map of the vector, whose entries are scaled to mean 0 and variance 1 over the training split."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, spec: Conditions, width: int) -> None:
        super().__init__()
        self.spec, self.linear = spec, nn.Linear(spec.width, width)
        nn.init.normal_(self.linear.weight, std=0.02 / math.sqrt(spec.width))  # as large as an embedded class
        nn.init.zeros_(self.linear.bias)
        for name in ("mean", "std"):  # not saved: the run's metadata have them
            self.register_buffer(name, torch.tensor(getattr(spec, name)), persistent=False)

    def forward(self, value: torch.Tensor, null_C: torch.Tensor) -> torch.Tensor:
        """(B, C)."""
        return self.linear(((value - self.mean) / self.std).nan_to_num())


class TokensCondition(VectorCondition):
    """A sequence, each vector mapped alike and with a learned position: (B, T, C), the null where no vector is.

    ``pooled``, for a network that reads one vector: attention over the vectors that exist, by one learned query for
    each of the C channels.
    """

    def __init__(self, spec: Conditions, width: int, pooled: bool) -> None:
        super().__init__(spec, width)
        self.pooled, self.position = pooled, nn.Parameter(0.02 * torch.randn(spec.length, width))
        if pooled:
            self.score, self.value = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, value: torch.Tensor, null_C: torch.Tensor) -> torch.Tensor:
        """(B, T, C), or (B, C) where it is pooled."""
        absent_BT1 = value.isnan().any(-1, keepdim=True)
        token_BTC = super().forward(value, null_C) + self.position
        if not self.pooled:
            return torch.where(absent_BT1, null_C.to(token_BTC.dtype), token_BTC)
        score_BTC = self.score(token_BTC).masked_fill(absent_BT1, torch.finfo(token_BTC.dtype).min)
        return (score_BTC.softmax(1) * self.value(token_BTC)).sum(1)


def embedding_of(spec: Conditions, width: int, longest: int) -> VectorCondition:
    """Return the embedding of such conditions.

    Args:
        longest: the network's ``condition_length``.

    Raises:
        UserError: the sequence is longer.
    """
    if not spec.length:
        return VectorCondition(spec, width)
    if 0 < longest < spec.length:
        raise UserError(
            f"the conditions have {spec.length} vectors, and the network {longest} buffer tokens that carry them: set "
            f"network.buffer={spec.length}"
        )
    return TokensCondition(spec, width, pooled=not longest)

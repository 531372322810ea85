"""Orderless NADE: a multilayer perceptron that is told what is known (Uria, Murray & Larochelle 2014, arXiv 1310.1757).

B batch · L tokens · E token channels · D width of a context · C condition width · H hidden units · M gathered tokens

The input is x ⊙ m beside m, the mask of what is known (Sec. 4.1); the outputs of unknown tokens are read. Every set of
known tokens is one conditional, whatever the order in which they came, and no weight is masked. Trained with
``train.mask_ratio=uniform``, the weight D/(D-d+1) of the paper's eq. 9, this is EoNADE; the mean of probabilities over
orders is ``mar score --orders``. With one hidden layer the fixed-order NADE (Larochelle & Murray 2011) is the same
conditionals under one order, its hidden layer computed anew for each of them.

For binary pixels the published network is ``token_width=1, context_width=1``, as for MADE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from mar.errors import UserError
from mar.networks.base import ABSENT, Network, NetworkOptions, at_least_one


@dataclass(frozen=True)
class NadeOptions(NetworkOptions):
    """Two hidden layers of 500 units are DeepNADE's on binarised MNIST."""

    widths: tuple[int, ...] = (500, 500)  # hidden units of each layer
    token_width: int = 4  # channels of an embedded token; 1 for binary pixels
    context_width: int = 8  # outputs of a token; 1 for binary pixels
    condition_width: int = 16

    def __post_init__(self) -> None:
        at_least_one(self, "token_width", "context_width", "condition_width")
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"network.widths wants at least one layer of at least one unit, not {list(self.widths)}")


class Nade(Network):
    """Not one-pass: in each row, what is known is what comes before the row's earliest target."""

    Options = NadeOptions
    tiny: ClassVar[dict[str, Any]] = {"widths": (16, 16)}
    token_codes: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: NadeOptions) -> None:
        super().__init__()
        self.options, self.n_tokens = options, math.prod(shape)
        self.token_width, self.context_width = options.token_width, options.context_width
        self.condition_width = options.condition_width
        sizes = (self.n_tokens * (options.token_width + 1), *options.widths)
        hidden = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        self.hidden = nn.ModuleList(hidden)
        self.condition = nn.Linear(options.condition_width, options.widths[0], bias=False)
        self.output = nn.Linear(options.widths[-1], self.n_tokens * options.context_width)
        for layer in hidden:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        token_BLD: torch.Tensor,
        step_BL: torch.Tensor,
        condition_BC: torch.Tensor,
        target_BL: torch.Tensor,
    ) -> torch.Tensor:
        now_B1 = torch.where(target_BL, step_BL, ABSENT).amin(1, keepdim=True)
        known_BL = step_BL < now_B1
        h_BH = torch.where(known_BL[..., None], F.pad(token_BLD, (0, 1), value=1.0), 0).flatten(1)
        for number, layer in enumerate(self.hidden):
            h_BH = F.relu(layer(h_BH) if number else layer(h_BH) + self.condition(condition_BC))
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        if len(row_M) > len(h_BH):
            return self.output(h_BH).unflatten(1, (self.n_tokens, self.context_width))[row_M, token_M]
        # at most one target a row, as in scoring: only its outputs are computed
        weight_MDH = F.embedding(token_M, self.output.weight.view(self.n_tokens, -1)).unflatten(1, (-1, h_BH.shape[1]))
        bias_MD = F.embedding(token_M, self.output.bias.view(self.n_tokens, -1))
        return (weight_MDH @ h_BH[row_M, :, None])[..., 0] + bias_MD

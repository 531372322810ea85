"""MADE: a multilayer perceptron over all tokens whose masks are the plan (Germain et al. 2015, arXiv 1502.03509).

B batch · L tokens · E token channels · D width of a context · C condition width · H hidden units · S connectivities ·
G plans (1 or B) · I inputs and O outputs of a layer · M gathered tokens

Every hidden unit has a degree m, an AR step. It takes tokens with step <= m, feeds units of degree >= m, and outputs of
tokens with step > m (Sec. 4.1 and 4.2, eq. 8 to 13). A connectivity gives each unit a rank in the generation order; its
degree is the step of the token at that rank, so that one connectivity serves every plan, degrees are spread over the
steps as tokens are, and a degree never depends on what comes after it.

For binary pixels the published network is ``token_width=1, context_width=1``: with two categories at -1 and 1, and a
head that turns one number into two logits, each pixel has one input and one logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.noise import Noise
from mar.core.options import at_least
from mar.networks.base import GIVEN, Network, NetworkOptions


@dataclass(frozen=True)
class MadeOptions(NetworkOptions):
    """``masks`` is the paper's number of masks; its orders are drawn by the recipe's ordering."""

    widths: tuple[int, ...] = (500,)  # hidden units of each layer
    masks: int = 1  # connectivities that training draws from, one an iteration; 0: a new one every time
    direct: bool = True  # connect tokens with the outputs of later ones, too
    connectivity_weights: bool = False  # a constant input beside each token, masked with it: tells a unit its mask
    token_width: int = 4  # channels of an embedded token; 1 for binary pixels
    context_width: int = 8  # outputs of a token; 1 for binary pixels
    condition_width: int = 16
    bounds: ClassVar = {
        **dict.fromkeys(("widths", "token_width", "context_width", "condition_width"), at_least(1)),
        "masks": at_least(0),
    }


class MaskedLinear(nn.Linear):
    """A linear map whose weights are masked, once for each of G plans."""

    def forward(self, x_GRI: Tensor, mask_GOI: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y_GRO = x_GRI @ torch.where(mask_GOI, self.weight, 0).mT
        return y_GRO if self.bias is None else y_GRO + self.bias


class Made(Network):
    """One pass, fastest when all rows share a plan: the weights are then masked once for the whole batch.

    A plan for each row works too, with masked weights for each row, as slow as rows one by one. Training samples one
    order for each iteration, as published; scoring under random orders is fast when images share the orders.

    Attributes:
        drawn_H: the ranks of the units of all layers, from ``resample``; None: the first connectivity, to which
            evaluation returns.
    """

    Options = MadeOptions
    test_options: ClassVar[dict[str, Any]] = {"widths": (32, 32), "masks": 0, "connectivity_weights": True}
    one_pass: ClassVar[bool] = True
    shares_plan: ClassVar[bool] = True
    masked_at_once = 2**26  # masked weights, where every row has its own plan: bounds the memory
    cosine_token_init: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: MadeOptions) -> None:
        super().__init__(shape, options)
        n_inputs = self.n_tokens * (options.token_width + options.connectivity_weights)
        n_outputs = self.n_tokens * options.context_width
        sizes = (n_inputs, *options.widths, n_outputs)
        layers = [MaskedLinear(i, o) for i, o in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.direct = MaskedLinear(n_inputs, n_outputs, bias=False) if options.direct else None
        self.condition = nn.Linear(options.condition_width, options.widths[0], bias=False)
        self.output_condition = nn.Linear(options.condition_width, n_outputs, bias=False)
        uniform_SH = torch.rand(max(1, options.masks), sum(options.widths))
        self.rank_SH: Tensor
        self.register_buffer("rank_SH", torch.stack([self._ranks(uniform_H) for uniform_H in uniform_SH]))
        self.drawn_H: Tensor | None = None
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(layers[-1].weight)
        if self.direct is not None:
            nn.init.zeros_(self.direct.weight)
        nn.init.zeros_(self.output_condition.weight)

    def _ranks(self, uniform_H: Tensor) -> Tensor:
        """Ranks in 0..L-2, uniform, from the second layer on at least the lowest of the layer before (Sec. 4.2)."""
        ranks, low, end = [], 0, max(1, self.n_tokens - 1)
        for uniform in uniform_H.split(self.options.widths):
            ranks.append(low + (uniform * (end - low)).long())
            low = int(ranks[-1].min())
        return torch.cat(ranks)

    def resample(self, generator: Noise) -> None:
        """Another connectivity, a function of ``generator``'s first stream: one of the ``masks``, or a new one."""
        noise = generator.to("cpu")
        if self.options.masks:
            number = int(noise.at("mask").uniform(1)[0, 0] * self.options.masks)
            self.drawn_H = self.rank_SH[number]
        else:
            drawn_H = self._ranks(noise.at("degrees").uniform(sum(self.options.widths))[0])
            self.drawn_H = drawn_H.to(self.rank_SH.device)

    def train(self, mode: bool = True) -> Made:
        if not mode:
            self.drawn_H = None
        return super().train(mode)

    def check(self, step_BL: Tensor) -> None:
        """Accept every plan."""

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        last_B1 = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True)
        if self.options.connectivity_weights:
            token_BLD = F.pad(token_BLD, (0, 1), value=1.0)
        input_BI = torch.where((step_BL < last_B1)[..., None], token_BLD, 0).flatten(1)
        if bool((step_BL == step_BL[:1]).all()):
            return self._contexts(input_BI, step_BL[:1], condition_BC)[target_BL]
        rows = max(1, self.masked_at_once // sum(p.numel() for p in self.parameters()))
        parts = zip(input_BI.split(rows), step_BL.split(rows), condition_BC.split(rows), strict=True)
        return torch.cat([self._contexts(*part) for part in parts])[target_BL]

    def _contexts(self, input_BI: Tensor, step_GL: Tensor, condition_BC: Tensor) -> Tensor:
        """z_BLD of every token, under one plan for all rows or one for each."""
        rank_H = self.rank_SH[0] if self.drawn_H is None else self.drawn_H
        degrees = step_GL.sort(dim=1).values[:, rank_H].split(self.options.widths, dim=1)
        rows = (len(step_GL), -1)
        input_GRI, condition_GRC = input_BI.unflatten(0, rows), condition_BC.unflatten(0, rows)
        from_GI = step_GL.repeat_interleave(input_BI.shape[1] // self.n_tokens, dim=1)
        to_GO = step_GL.repeat_interleave(self.context_width, dim=1)
        h_GRH, before_GI = input_GRI, from_GI
        for number, (layer, degree_GO) in enumerate(zip(self.layers, degrees, strict=False)):
            h_GRH = layer(h_GRH, degree_GO[:, :, None] >= before_GI[:, None])
            h_GRH = F.relu(h_GRH if number else h_GRH + self.condition(condition_GRC))
            before_GI = degree_GO
        z_GRO = self.layers[-1](h_GRH, to_GO[:, :, None] > before_GI[:, None])
        z_GRO = z_GRO + self.output_condition(condition_GRC)
        if self.direct is not None:
            z_GRO = z_GRO + self.direct(input_GRI, to_GO[:, :, None] > from_GI[:, None])
        return z_GRO.flatten(0, 1).unflatten(1, (self.n_tokens, self.context_width))

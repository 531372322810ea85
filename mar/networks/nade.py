"""Orderless NADE: a multilayer perceptron whose input marks the known tokens (Uria, Murray & Larochelle 2014,
arXiv 1310.1757).

B batch · L tokens · E token channels · D width of a context · C condition width · H hidden units of a layer · R known
sets · M gathered tokens

The input is x ⊙ m beside m, the mask of what is known (Sec. 4.1); the outputs of unknown tokens are read. Every set of
known tokens is one conditional, whatever the order in which they came, and no weight is masked. Trained with
``train.objective=any_order``, the weight D/(D-d+1) of the paper's eq. 9, this is EoNADE; the mean of probabilities over
orders is ``mar score nll --orders``.

The known set grows along an order, and so do the sums of the first layer: all conditionals cost one product with its
weights and a running sum, NADE's own trick (Larochelle & Murray 2011, Sec. 3). Later layers are computed for each
known set. With one hidden layer and ``train.objective=next_set`` along a fixed order this is NADE.

For binary pixels the published network is ``token_width=1, context_width=1``, as for MADE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.options import at_least
from mar.networks.base import ABSENT, GIVEN, Network, NetworkOptions


@dataclass(frozen=True)
class NadeOptions(NetworkOptions):
    """Two hidden layers of 500 units are DeepNADE's on binarised MNIST."""

    widths: tuple[int, ...] = (500, 500)  # hidden units of each layer
    token_width: int = 4  # channels of an embedded token; 1 for binary pixels
    context_width: int = 8  # outputs of a token; 1 for binary pixels
    condition_width: int = 16
    bounds: ClassVar = dict.fromkeys(("widths", "token_width", "context_width", "condition_width"), at_least(1))


@dataclass(frozen=True)
class Known:
    """The state of a generation: the first layer's sums over the known tokens, sum_BH, and its bias and condition."""

    sum_BH: Tensor
    start_BH: Tensor


class Nade(Network):
    """One pass: the first layer at every step of a row, the later ones at the steps that have targets."""

    Options = NadeOptions
    test_options: ClassVar[dict[str, Any]] = {"widths": (16, 16)}
    one_pass: ClassVar[bool] = True
    order_invariant: ClassVar[bool] = True
    cosine_token_init: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: NadeOptions) -> None:
        super().__init__(shape, options)
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

    def row_floats(self, n_tokens: int) -> int:
        """For each token its part of the first layer's sums, in two orders, the sums, the layers, the last again."""
        widths = self.options.widths
        return n_tokens * (3 * widths[0] + 2 * sum(widths) + widths[-1] + 4 * self.context_width)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        first_B1 = torch.where(target_BL, step_BL, ABSENT).amin(1, keepdim=True)
        last_B1 = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True)
        if bool((first_B1 >= last_B1).all()):  # one known set a row
            known = Known(self._sum(token_BLD, step_BL < first_B1), self._start(condition_BC))
            return self.query(known, target_BL)
        sum_BLH, number_BL = self._sums(token_BLD, step_BL, last_B1)
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        place_R, set_M = (row_M * sum_BLH.shape[1] + number_BL[target_BL]).unique(return_inverse=True)
        sum_RH = sum_BLH.flatten(0, 1)[place_R] + self._start(condition_BC)[place_R // sum_BLH.shape[1]]
        h_MH = self._hidden(sum_RH)[set_M]
        h_BLH = h_MH.new_zeros(*target_BL.shape, h_MH.shape[1]).index_put((row_M, token_M), h_MH)
        weight_LDH = self.output.weight.view(self.n_tokens, self.context_width, -1)
        z_BLD = torch.einsum("blh,ldh->bld", h_BLH, weight_LDH) + self.output.bias.view(self.n_tokens, -1)
        return z_BLD[row_M, token_M]

    def _sums(self, token_BLD: Tensor, step_BL: Tensor, last_B1: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's sums over the first 0, 1, … L tokens of each row's order (B, 1 + L, H), and number_BL: over
        how many each token is predicted from. Tokens that are not conditioned on contribute zero."""
        known_BLE = torch.where((step_BL < last_B1)[..., None], F.pad(token_BLD, (0, 1), value=1.0), 0)
        part_BLH = torch.einsum("ble,hle->blh", known_BLE, self._weight_HLE()).float()
        sorted_BL, order_BL = step_BL.sort(1)
        sum_BLH = part_BLH.gather(1, order_BL[..., None].expand_as(part_BLH)).cumsum(1)
        return F.pad(sum_BLH, (0, 0, 1, 0)), torch.searchsorted(sorted_BL, step_BL.contiguous())

    def _sum(self, token_BLD: Tensor, known_BL: Tensor) -> Tensor:
        """Return sum_BH of one known set for each row."""
        known_BLE = torch.where(known_BL[..., None], F.pad(token_BLD, (0, 1), value=1.0), 0)
        return F.linear(known_BLE.flatten(1), self._weight_HLE().flatten(1))

    def _weight_HLE(self) -> Tensor:
        """The first layer's weights for the channels of each token and for its mask."""
        first: Any = self.hidden[0]
        return first.weight.unflatten(1, (self.n_tokens, -1))

    def _start(self, condition_BC: Tensor) -> Tensor:
        """Return start_BH: the first layer when no token is known."""
        first: Any = self.hidden[0]
        return first.bias + self.condition(condition_BC)

    def _hidden(self, sum_RH: Tensor) -> Tensor:
        """Return h_RH of the last hidden layer."""
        h_RH = F.relu(sum_RH)
        for layer in list(self.hidden)[1:]:
            h_RH = F.relu(layer(h_RH))
        return h_RH

    # Incremental generation: the first layer's sums grow with each known token.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> Known:
        start_BH = self._start(condition_BC)
        return Known(torch.zeros_like(start_BH, dtype=torch.float32), start_BH)

    def observe(self, state: Known, token_BLD: Tensor, index_BL: Tensor) -> Known:
        row_M, token_M = index_BL.nonzero(as_tuple=True)
        if len(row_M) > len(index_BL):
            return replace(state, sum_BH=state.sum_BH + self._sum(token_BLD, index_BL))
        # at most one token a row: only its weights are read
        weight_HME = self._weight_HLE()[:, token_M]
        part_MH = torch.einsum("me,hme->mh", F.pad(token_BLD[row_M, token_M], (0, 1), value=1.0), weight_HME)
        return replace(state, sum_BH=state.sum_BH.index_add(0, row_M, part_MH.float()))

    def query(self, state: Known, index_BL: Tensor) -> Tensor:
        h_BH = self._hidden(state.sum_BH + state.start_BH)
        row_M, token_M = index_BL.nonzero(as_tuple=True)
        if len(row_M) > len(h_BH):
            return self.output(h_BH).unflatten(1, (self.n_tokens, self.context_width))[row_M, token_M]
        # at most one target a row, as in generation: only its outputs are computed
        weight_MDH = F.embedding(token_M, self.output.weight.view(self.n_tokens, -1)).unflatten(1, (-1, h_BH.shape[1]))
        bias_MD = F.embedding(token_M, self.output.bias.view(self.n_tokens, -1))
        return (weight_MDH @ h_BH[row_M, :, None])[..., 0] + bias_MD

"""Locally masked convolutions: PixelCNN in any order (van den Oord et al. 2016; Jain et al. 2020, LMConv).

B batch · L tokens · A axes of the grid · K offsets of a kernel · E token channels · I inputs and O outputs of a layer ·
D width · C condition width · M gathered locations

The plan masks the kernel at each location. The first layer reads the tokens of neighbours with strictly earlier steps;
later layers read the features of these neighbours and of the location itself. (Features of other tokens of the same
step would be no leak, but a token's distribution would then depend on its set, which a sampler that queries all unknown
tokens does not know.) With one token at a time these are PixelCNN's masks A and B; raster order is PixelCNN. GIVEN
tokens are all known before the first step, and read each other and themselves.

The receptive field is local: D blocks of kernel k reach D (k-1)/2 tokens, times their dilation, beyond the first layer,
along paths of known tokens only; raster order keeps PixelCNN's blind spot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.options import SHARE, at_least
from mar.networks.attention import Positions
from mar.networks.base import GIVEN, Network, NetworkOptions


@dataclass(frozen=True)
class Queries:
    """The queried locations (row, token); each reads the tokens with a step before its own ``before``."""

    step_BL: Tensor  # of every location
    row_M: Tensor
    token_M: Tensor
    before_M: Tensor


class LocalConvolution(nn.Module):
    """y[l] = sum over the unmasked offsets k of (W_k x[l + k] + b_k): the bias of each offset carries the mask.

    On a grid of any number of axes; offsets that leave the grid from every location are dropped. Masked inputs are
    never read. Training keeps K times the input in memory.

    Args:
        own: a location reads its own input under every plan (PixelCNN's mask B).
        renormalise: multiply by K over the number of unmasked offsets (Liu et al. 2018, eq. 1).
    """

    def __init__(
        self, shape: tuple[int, ...], n_inputs: int, n_outputs: int, kernel: int, dilation: int, own: bool,
        renormalise: bool
    ) -> None:  # fmt: skip
        super().__init__()
        self.n_inputs, self.renormalise = n_inputs, renormalise
        size_A, axes = torch.tensor(shape), len(shape)
        side = dilation * (torch.arange(kernel) - kernel // 2)
        offset_KA = torch.cartesian_prod(*(side[side.abs() < n] for n in shape)).reshape(-1, axes)
        location_LA = torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, axes)
        there_LKA = location_LA[:, None] + offset_KA
        inside_LK = ((there_LKA >= 0) & (there_LKA < size_A)).all(-1)
        stride_A = torch.tensor([math.prod(shape[axis + 1 :]) for axis in range(axes)])
        self.neighbour_LK: Tensor
        self.inside_LK: Tensor
        self.own_K: Tensor
        neighbour_LK = (there_LKA * stride_A).sum(-1).masked_fill(~inside_LK, 0)
        self.register_buffer("neighbour_LK", neighbour_LK, persistent=False)
        self.register_buffer("inside_LK", inside_LK, persistent=False)
        self.register_buffer("own_K", (offset_KA == 0).all(1) & own, persistent=False)
        self.kernels = nn.Linear(len(offset_KA) * n_inputs, n_outputs)
        self.seen = nn.Linear(len(offset_KA), n_outputs, bias=False)

    def forward(self, x_BLI: Tensor, queries: Queries) -> Tensor:
        """Return y_MO of the queried locations."""
        neighbour_MK, row_M1 = self.neighbour_LK[queries.token_M], queries.row_M[:, None]
        earlier_MK = queries.step_BL[row_M1, neighbour_MK] < queries.before_M[:, None]
        mask_MK = earlier_MK & self.inside_LK[queries.token_M] | self.own_K
        table = F.pad(x_BLI.flatten(0, 1), (0, 0, 0, 1))  # masked places point at the last row, zeros
        place_MK = torch.where(mask_MK, row_M1 * x_BLI.shape[1] + neighbour_MK, len(table) - 1)
        y_MO = self.kernels(F.embedding(place_MK, table).flatten(1)) + self.seen(mask_MK.to(x_BLI.dtype))
        if not self.renormalise:
            return y_MO
        return y_MO * (mask_MK.shape[1] / mask_MK.sum(1, keepdim=True).clamp(min=1))


Read = Callable[[LocalConvolution, Tensor], Tensor]  # a layer and its input -> its output


class GatedBlock(nn.Module):
    """h + W (tanh(f) ⊙ σ(g)), with (f, g) a convolution of the normalised input and a linear map of the condition.

    van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders", eq. 2 and 4.
    """

    def __init__(self, convolution: LocalConvolution, width: int, condition_width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = convolution
        self.condition = nn.Linear(condition_width, 2 * width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Linear(width, width)

    def forward(self, h_MD: Tensor, condition_MC: Tensor, read: Read) -> Tensor:
        """Return h_MD; ``read`` applies the convolution at these locations."""
        f_MD, g_MD = (read(self.convolution, self.norm(h_MD)) + self.condition(condition_MC)).chunk(2, dim=1)
        return h_MD + self.mix(self.dropout(f_MD.tanh() * g_MD.sigmoid()))


@dataclass(frozen=True)
class MaskedConvolutionOptions(NetworkOptions):
    """The receptive field grows with ``depth``, ``kernel`` and ``dilations``, the cost with the first two."""

    width: int = 32
    depth: int = 6  # gated residual blocks
    first_kernel: int = 5  # tokens a side, odd; on every axis of the grid
    kernel: int = 3  # of the blocks
    dilations: tuple[int, ...] = (1,)  # of the blocks, in turns
    renormalise: bool = False  # divide by the unmasked share of the kernel (partial convolutions)
    dropout: float = 0.0
    token_width: int = 4  # channels of an embedded token
    condition_width: int = 16
    bounds: ClassVar = {
        **dict.fromkeys(("width", "depth", "dilations", "token_width", "condition_width"), at_least(1)),
        **dict.fromkeys(("first_kernel", "kernel"), ("an odd number of tokens", lambda n: n > 0 and n % 2 == 1)),
        "dropout": SHARE,
    }


@dataclass
class CacheState:
    """The state of a generation: the inputs of every layer at the known locations, which later tokens never change.

    ``query`` and ``observe`` write into it, so one state serves one generation.
    """

    condition_BC: Tensor
    step_BL: Tensor  # GIVEN where a token is known, 0 elsewhere
    inputs: dict[nn.Module, Tensor]  # (B, L, I) of each layer, the first's are tokens
    given: bool = False  # the given tokens were observed


class MaskedConvolution(Network):
    """One pass; generation with cached features costs one pass in all, not one for each step."""

    Options = MaskedConvolutionOptions
    test_options: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2, "first_kernel": 3, "renormalise": True}
    one_pass: ClassVar[bool] = True
    cosine_token_init: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: MaskedConvolutionOptions) -> None:
        super().__init__(shape, options)
        width = options.width
        make = partial(LocalConvolution, shape, renormalise=options.renormalise)
        self.first = make(options.token_width, width, kernel=options.first_kernel, dilation=1, own=False)
        self.position = Positions(shape, width, axes=False)
        dilations = itertools.islice(itertools.cycle(options.dilations), options.depth)
        self.blocks = nn.ModuleList(
            GatedBlock(
                make(width, 2 * width, kernel=options.kernel, dilation=dilation, own=True),
                width, options.condition_width, options.dropout
            )
            for dilation in dilations
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        asks_BL = step_BL.clamp(min=0)  # a given token reads the other given tokens
        row_M, token_M = torch.ones_like(target_BL).nonzero(as_tuple=True)
        queries = Queries(step_BL, row_M, token_M, asks_BL.flatten())

        def read(layer: LocalConvolution, x_MI: Tensor) -> Tensor:
            return layer(x_MI.unflatten(0, step_BL.shape), queries)

        h_MD = self._features(self.first(token_BLD, queries), condition_BC, queries, read)
        return self.norm(h_MD[target_BL.flatten()])

    def _features(self, h_MD: Tensor, condition_BC: Tensor, queries: Queries, read: Read) -> Tensor:
        """Return h_MD after all blocks, from the output of the first layer."""
        h_MD = h_MD + F.embedding(queries.token_M, self.position())
        condition_MC = F.embedding(queries.row_M, condition_BC)
        for block in self.blocks:
            h_MD = block(h_MD, condition_MC, read)
        return h_MD

    # Incremental generation: the features of a location are final once its step is reached, so each is computed once.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> CacheState:
        layers = [self.first, *(block.convolution for block in self.blocks)]
        inputs = {layer: condition_BC.new_zeros(*absent_BL.shape, layer.n_inputs) for layer in layers}
        return CacheState(condition_BC, torch.zeros_like(absent_BL, dtype=torch.int64), inputs)

    def observe(self, state: CacheState, token_BLD: Tensor, index_BL: Tensor) -> CacheState:
        if state.given:
            self.query(state, index_BL)  # their features, computed before they read themselves
        state.inputs[self.first][index_BL] = token_BLD[index_BL].to(state.condition_BC.dtype)
        state.step_BL = state.step_BL.masked_fill(index_BL, GIVEN)
        if not state.given:
            self.query(state, index_BL)  # given tokens read each other and themselves
        state.given = True
        return state

    def query(self, state: CacheState, index_BL: Tensor) -> Tensor:
        row_M, token_M = index_BL.nonzero(as_tuple=True)
        queries = Queries(state.step_BL, row_M, token_M, torch.zeros_like(row_M))

        def read(layer: LocalConvolution, x_MI: Tensor) -> Tensor:
            input_BLI = state.inputs[layer]
            input_BLI[row_M, token_M] = x_MI.to(input_BLI.dtype)  # others read it only once the token is known
            return layer(input_BLI, queries)

        h_MD = self._features(self.first(state.inputs[self.first], queries), state.condition_BC, queries, read)
        return self.norm(h_MD)

"""Locally masked convolutions: PixelCNN in any order (van den Oord et al. 2016; Jain et al. 2020, LMConv).

B batch · L tokens · K offsets of a kernel · E token channels · C condition width · I inputs and O outputs of a layer ·
D width · M gathered tokens

The kernel is masked at each location by the plan. The first layer sees the tokens of neighbours with strictly earlier
steps; later layers see the features of these neighbours and of the location itself. (Features of other tokens of the
same step would be no leak, but a token's distribution would depend on what else is generated with it, which a sampler
that asks for all unknown tokens does not know.) With one token at a time these are PixelCNN's masks A and B; raster
order is PixelCNN. GIVEN tokens are all known before the first step, and see each other and themselves.

The receptive field is local: D blocks of kernel k reach D (k-1)/2 tokens, times their dilation, beyond the first
layer's, along paths of known tokens alone; raster order keeps PixelCNN's blind spot.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from mar.errors import UserError
from mar.networks.base import GIVEN, Network, NetworkOptions, at_least_one, in_unit_interval
from mar.networks.local_convolution import Asked, GatedBlock, LocalConvolution, Read
from mar.networks.positions import Positions


@dataclass(frozen=True)
class MaskedConvolutionOptions(NetworkOptions):
    """The receptive field grows with ``depth``, ``kernel`` and ``dilations``, the cost with the first two."""

    width: int = 32
    depth: int = 6  # gated residual blocks
    first_kernel: int = 5  # tokens a side, odd; on every axis of the grid
    kernel: int = 3  # of the blocks
    dilations: tuple[int, ...] = (1,)  # of the blocks, in turns
    renormalise: bool = False  # divide by the share of the kernel that is seen (partial convolutions)
    dropout: float = 0.0
    token_width: int = 4  # channels of an embedded token
    condition_width: int = 16

    def __post_init__(self) -> None:
        at_least_one(self, "width", "depth", "token_width", "condition_width")
        for name in ("first_kernel", "kernel"):
            if (value := getattr(self, name)) < 1 or value % 2 == 0:
                raise UserError(f"network.{name} must be an odd number of tokens, not {value}")
        if not self.dilations or min(self.dilations) < 1:
            raise UserError(f"network.dilations wants numbers of at least 1, not {list(self.dilations)}")
        in_unit_interval(self, "dropout")


@dataclass
class Generated:
    """Incremental generation: the inputs of every layer at the known locations, which later tokens never change.

    ``observe`` and ``query`` write into it: a state is used along one generation, not branched.
    """

    condition_BC: torch.Tensor
    step_BL: torch.Tensor  # GIVEN where a token is known, 0 where it is not
    inputs: dict[nn.Module, torch.Tensor]  # (B, L, I) of each layer, the first's are tokens
    given: bool = False  # the given tokens were observed


class MaskedConvolution(Network):
    """One pass; generation with cached features costs one pass in all, not one for each step."""

    Options = MaskedConvolutionOptions
    tiny: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2, "first_kernel": 3, "renormalise": True}
    one_pass: ClassVar[bool] = True
    token_codes: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: MaskedConvolutionOptions) -> None:
        super().__init__()
        self.options, width = options, options.width
        self.token_width, self.context_width = options.token_width, width
        self.condition_width = options.condition_width
        make = partial(LocalConvolution, shape, renormalise=options.renormalise)
        self.first = make(options.token_width, width, kernel=options.first_kernel, dilation=1, own=False)
        self.position = Positions(shape, width, axes=False)
        dilations = itertools.islice(itertools.cycle(options.dilations), options.depth)
        self.blocks = nn.ModuleList(
            GatedBlock(
                make(width, 2 * width, kernel=options.kernel, dilation=dilation, own=True),
                width, options.condition_width, options.dropout,
            )
            for dilation in dilations
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        token_BLD: torch.Tensor,
        step_BL: torch.Tensor,
        condition_BC: torch.Tensor,
        target_BL: torch.Tensor,
    ) -> torch.Tensor:
        asks_BL = step_BL.clamp(min=0)  # what a given token sees is what all see from the start
        row_M, token_M = torch.ones_like(target_BL).nonzero(as_tuple=True)
        asked = Asked(step_BL, row_M, token_M, asks_BL.flatten())

        def read(layer: LocalConvolution, x_MI: torch.Tensor) -> torch.Tensor:
            return layer(x_MI.unflatten(0, step_BL.shape), asked)

        h_MD = self._features(self.first(token_BLD, asked), condition_BC, asked, read)
        return self.norm(h_MD[target_BL.flatten()])

    def _features(self, h_MD: torch.Tensor, condition_BC: torch.Tensor, asked: Asked, read: Read) -> torch.Tensor:
        """h_MD after all blocks, from the first layer's output."""
        h_MD = h_MD + F.embedding(asked.token_M, self.position())
        condition_MC = F.embedding(asked.row_M, condition_BC)
        for block in self.blocks:
            h_MD = block(h_MD, condition_MC, read)
        return h_MD

    # Incremental generation: a location's features are final once its step has come, so each is computed once.

    def begin(self, condition_BC: torch.Tensor, absent_BL: torch.Tensor) -> Generated:
        layers = [self.first, *(block.convolution for block in self.blocks)]
        inputs = {layer: condition_BC.new_zeros(*absent_BL.shape, layer.n_inputs) for layer in layers}
        return Generated(condition_BC, torch.zeros_like(absent_BL, dtype=torch.int64), inputs)

    def observe(self, state: Generated, token_BLD: torch.Tensor, index_BL: torch.Tensor) -> Generated:
        if state.given:
            self.query(state, index_BL)  # their features, before they see themselves
        state.inputs[self.first][index_BL] = token_BLD[index_BL].to(state.condition_BC.dtype)
        state.step_BL = state.step_BL.masked_fill(index_BL, GIVEN)
        if not state.given:
            self.query(state, index_BL)  # given tokens see each other and themselves
        state.given = True
        return state

    def query(self, state: Generated, index_BL: torch.Tensor) -> torch.Tensor:
        row_M, token_M = index_BL.nonzero(as_tuple=True)
        asked = Asked(state.step_BL, row_M, token_M, torch.zeros_like(row_M))

        def read(layer: LocalConvolution, x_MI: torch.Tensor) -> torch.Tensor:
            input_BLI = state.inputs[layer]
            input_BLI[row_M, token_M] = x_MI.to(input_BLI.dtype)  # nobody else reads it while the token is unknown
            return layer(input_BLI, asked)

        h_MD = self._features(self.first(state.inputs[self.first], asked), state.condition_BC, asked, read)
        return self.norm(h_MD)

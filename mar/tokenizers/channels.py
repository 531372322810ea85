"""Channels of pixels as categories: R, G and B of a pixel are three tokens, on a third axis of the grid.

B batch · L tokens (H W C) · C, H, W channels, rows, columns of an image · V vocabulary (the levels)
"""

from __future__ import annotations

import math

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.tokenizers.base import Tokenizer, TokenizerOptions


class Channels(Tokenizer):
    """Row-major with the channels last, one category for each of the levels: the joint of the integer data, exactly.

    In raster order this is PixelRNN's factorisation: R, then G given R, then B given both (van den Oord et al. 2016).
    """

    def __init__(self, spec: DataSpec, options: TokenizerOptions) -> None:
        super().__init__()
        if len(spec.shape) != 3 or not 2 <= spec.levels <= 256 or spec.modality != "image":
            raise UserError(
                f"tokenizer channels needs images of 2 to 256 levels, not {spec.modality} of shape {spec.shape} with "
                f"{spec.levels} levels: use tokenizer.kind={'sequence' if spec.levels else 'values'}"
            )
        channels, rows, columns = spec.shape
        self.shape = (rows, columns, channels)
        self.token = Categories(spec.levels)
        self.dimensions = math.prod(self.shape)

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, C, H, W) uint8 -> (B, L) int64."""
        return x.permute(0, 2, 3, 1).flatten(1).long()

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 -> (B, C, H, W) uint8."""
        return token.to(torch.uint8).unflatten(1, self.shape).permute(0, 3, 1, 2).contiguous()

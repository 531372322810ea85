"""Pixels as categories: each pixel of a grey image is one token.

B batch · L tokens (H W) · V vocabulary (the levels)
"""

from __future__ import annotations

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.tokenizers.base import Tokenizer, TokenizerOptions


class Pixels(Tokenizer):
    """Row-major, one category for each of the levels: the joint of the integer data, exactly."""

    def __init__(self, spec: DataSpec, options: TokenizerOptions) -> None:
        super().__init__()
        if len(spec.shape) != 3 or spec.shape[0] != 1 or not 2 <= spec.levels <= 256:
            raise UserError(
                f"tokenizer pixels needs images of one channel and 2 to 256 levels, not {spec.shape} with "
                f"{spec.levels} levels: use grey images (data.colour=grey) or tokenizer.kind=patches"
            )
        self.shape = spec.shape[1:]
        self.token = Categories(spec.levels)
        self.dimensions = self.shape[0] * self.shape[1]

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, 1, H, W) uint8 -> (B, L) int64."""
        return x.flatten(1).long()

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 -> (B, 1, H, W) uint8."""
        return token.to(torch.uint8).reshape(-1, 1, *self.shape)

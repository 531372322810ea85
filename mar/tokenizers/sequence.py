"""Values of a series or a vector as categories: each character, sample or variable is one token of a 1-D grid.

B batch · L tokens · V vocabulary (the levels)
"""

from __future__ import annotations

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.tokenizers.base import Tokenizer, TokenizerOptions


class Sequence(Tokenizer):
    """One category for each of the levels: the joint of the integer data, exactly."""

    token: Categories

    def __init__(self, spec: DataSpec, options: TokenizerOptions) -> None:
        super().__init__()
        if spec.shape[:-1] != (1, 1) or spec.levels < 2:
            raise UserError(
                f"tokenizer sequence needs series of shape (1, 1, L) and at least 2 levels, not {spec.shape} "
                f"with {spec.levels} levels: use tokenizer.kind={'pixels or patches' if spec.levels else 'values'}"
            )
        self.shape = spec.shape[2:]
        self.token = Categories(spec.levels)
        self.dimensions, self.end = spec.shape[2], spec.end

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, 1, 1, L) integers -> (B, L) int64."""
        return x.flatten(1).long()

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 -> (B, 1, 1, L) uint8, or int16 above 256 levels; ``end`` in place of absent tokens."""
        if self.end is not None:
            token = token.masked_fill(self.absent(token), self.end)
        return token.to(torch.uint8 if self.token.vocabulary <= 256 else torch.int16)[:, None, None]

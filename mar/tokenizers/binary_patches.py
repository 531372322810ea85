"""Patches of a binary image as categories: p×p bits are one of 2^(p p) values. The joint of the pixels stays exact.

B batch · L tokens · E bits of a patch · V vocabulary (2^E)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.tokenizers.base import Tokenizer, TokenizerOptions
from mar.tokenizers.patches import patch_grid, patchify, unpatchify

_LARGEST = 3  # pixels: 2^9 categories; a softmax over 2^16 is no longer small


@dataclass(frozen=True)
class BinaryPatchesOptions(TokenizerOptions):
    patch: int = 2  # side of a patch in pixels

    def __post_init__(self) -> None:
        if not 1 <= self.patch <= _LARGEST:
            raise UserError(f"tokenizer.patch of binary-patches is 1 to {_LARGEST}, not {self.patch}")


class BinaryPatches(Tokenizer):
    """The first pixel of a patch (row-major) is the lowest bit of its category."""

    Options = BinaryPatchesOptions
    bit_E: torch.Tensor

    def __init__(self, spec: DataSpec, options: BinaryPatchesOptions) -> None:
        super().__init__()
        if spec.levels != 2 or spec.shape[0] != 1:
            raise UserError(
                f"tokenizer binary-patches needs binary images of one channel, not {spec.shape} with {spec.levels} "
                f"levels: use data.kind=binarized-mnist, or tokenizer.kind=pixels or patches"
            )
        self.options = options
        self.shape = patch_grid(spec.shape, options.patch, _LARGEST)
        self.token = Categories(2**options.patch**2)
        self.dimensions = math.prod(spec.shape)
        self.register_buffer("bit_E", torch.arange(options.patch**2), persistent=False)

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, 1, H, W) of 0 and 1 -> (B, L) int64."""
        return (patchify(x, self.options.patch).long() << self.bit_E).sum(-1)

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 -> (B, 1, H, W) uint8."""
        bits_BLE = (token[..., None] >> self.bit_E & 1).to(torch.uint8)
        return unpatchify(bits_BLE, self.shape, self.options.patch)

"""Values as categories: each pixel, channel, character, sample or variable of an example is one token.

B batch · L tokens · C, H, W channels, rows, columns of an image · V vocabulary (the levels)
"""

from __future__ import annotations

import math

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.tokenizers.base import Tokenizer, TokenizerOptions, require_images


class Sequence(Tokenizer):
    """The values of a series or vector on a 1-D grid: the joint of the integer data, exactly."""

    token: Categories

    def __init__(self, spec: DataSpec, options: TokenizerOptions) -> None:
        super().__init__()
        self.example, self.time = spec.shape, spec.modality == "video"
        self.shape = self.grid(spec)
        self.token = Categories(spec.levels)
        self.dimensions = 0 if spec.modality == "latent" else math.prod(spec.shape)  # indices do not determine an image
        self.end = spec.end

    def grid(self, spec: DataSpec) -> tuple[int, ...]:
        """Return the token grid. Raises UserError: the tokenizer does not serve these data."""
        if spec.shape[:-1] != (1, 1) or spec.levels < 2:
            raise UserError(
                f"tokenizer sequence needs series of shape (1, 1, L) and at least 2 levels, not {spec.shape} "
                f"with {spec.levels} levels: use tokenizer.kind={'pixels or patches' if spec.levels else 'values'}"
            )
        return spec.shape[2:]

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, …) integers -> (B, L) int64."""
        return x.flatten(1).long()

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 -> (B, …) uint8, int16 above 256 levels, or int32; ``end`` in place of absent tokens."""
        if self.end is not None:
            token = token.masked_fill(self.absent(token), self.end)
        kinds = ((2**8, torch.uint8), (2**15, torch.int16), (2**31, torch.int32))
        kind = next(kind for most, kind in kinds if self.token.vocabulary <= most)
        return token.to(kind).reshape(-1, *self.example)


class Pixels(Sequence):
    """The pixels of a grey image or video (frame by frame), or the indices of a codebook, row-major."""

    def grid(self, spec: DataSpec) -> tuple[int, ...]:
        fits = spec.modality == "latent" or spec.levels <= 256  # indices of a codebook, or levels of an image
        if len(spec.shape) != 3 + self.time or spec.shape[-3] != 1 or spec.levels < 2 or not fits:
            raise UserError(
                f"tokenizer pixels needs images of one channel and 2 to 256 levels, not {spec.shape} with "
                f"{spec.levels} levels: use grey images (data.colour=grey) or tokenizer.kind=patches"
            )
        return (*spec.shape[:-3], *spec.shape[-2:])


class Channels(Sequence):
    """Row-major with the channels last: R, G and B of a pixel are three tokens on a third axis of the grid.

    In raster order this is PixelRNN's factorisation: R, then G given R, then B given both (van den Oord et al. 2016).
    """

    def grid(self, spec: DataSpec) -> tuple[int, ...]:
        require_images("channels", spec)
        return (*spec.shape[1:], spec.shape[0])

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        return super().encode(x.permute(0, 2, 3, 1))

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        return token.to(torch.uint8).unflatten(1, self.shape).permute(0, 3, 1, 2).contiguous()

"""Pixels as colours of a palette: each pixel is one category, its nearest colour (image GPT, Chen et al. 2020, Sec. 3).

The palette is k-means on the colours of the training split, 512 of them by default (their "9-bit colour palette").
Three channels make one token, and the difference between a pixel and its colour is lost: likelihoods are of the tokens.
With ``patch`` p, a "colour" is a p×p patch of pixels: vector quantisation without a learned encoder.

B batch · L tokens (H W / p²) · C channels, those of the pixels of a patch · N distinct colours · V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.options import between
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.tokenizers.base import Tokenizer, TokenizerOptions, require_images
from mar.tokenizers.patches import patch_grid, patchify, unpatchify

_LARGEST = 2**14  # colours; a head has a logit for each
_PIXELS = 2**15  # compared with the palette at a time
_CHANNELS = 7  # of a colour; its levels are the bytes of one int64


@dataclass(frozen=True)
class PaletteOptions(TokenizerOptions):
    colours: int = 512  # at most; images with fewer colours keep them all
    patch: int = 1  # side in pixels of what shares a colour
    bounds: ClassVar = {"colours": between(2, _LARGEST)}


class Palette(Tokenizer):
    """Row-major; colours sorted from dark to bright. Categories beyond the number of colours repeat the first one."""

    Options = PaletteOptions
    token: Categories
    dimensions = 0
    colour_VC: torch.Tensor  # float32, whole numbers

    def __init__(self, spec: DataSpec, options: PaletteOptions) -> None:
        super().__init__()
        require_images("palette", spec)
        self.options = options
        self.shape, channels = patch_grid(spec.shape, options.patch), spec.shape[0] * options.patch**2
        if channels > max(_CHANNELS, spec.shape[0]):
            raise UserError(
                f"tokenizer.patch={options.patch} of palette makes colours of {channels} values, at most {_CHANNELS} "
                "are supported: use a smaller patch, or tokenizer.kind=vq"
            )
        self.token = Categories(min(options.colours, spec.levels**channels))
        self.register_buffer("colour_VC", torch.zeros(self.token.vocabulary, channels))

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Store all colours if they are few enough, else k-means centres, colours weighted by their pixels."""
        colour_NC, count_N = _distinct(patchify(x, self.options.patch) for x in batches)
        if len(colour_NC) > self.token.vocabulary:
            colour_NC = _k_means(colour_NC, count_N, self.token.vocabulary)
        colour_NC = colour_NC[np.argsort(colour_NC.sum(1), kind="stable")]
        missing = self.token.vocabulary - len(colour_NC)
        self.colour_VC.copy_(torch.from_numpy(np.concatenate([colour_NC, colour_NC[:1].repeat(missing, 0)])))

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, C, H, W) uint8 -> (B, L) int64: the nearest colour, the first of equally near ones."""
        pixel_PC = patchify(x, self.options.patch).flatten(0, 1).float()
        half_V = self.colour_VC.square().sum(1) / 2  # |x - c|² / 2 = |x|² / 2 - x·c + |c|² / 2, exact in float32
        with torch.autocast(x.device.type, enabled=False):
            token = [(part @ self.colour_VC.T - half_V).argmax(1) for part in pixel_PC.split(_PIXELS)]
        return torch.cat(token).reshape(len(x), math.prod(self.shape))

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 -> (B, C, H, W) uint8: the colours."""
        return unpatchify(self.colour_VC[token].to(torch.uint8), self.shape, self.options.patch)


def _distinct(batches: Iterable[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct colour_NC of batches (B, L, C) and their pixels count_N. UserError: no images."""
    code_N, count_N, channels = np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    for x in batches:
        channels = x.shape[2]
        pixel_PC = x.cpu().reshape(-1, channels).numpy().astype(np.int64)
        codes = np.concatenate([code_N, pixel_PC @ 256 ** np.arange(channels)])
        counts = np.concatenate([count_N, np.ones(len(pixel_PC), np.int64)])
        code_N, place = np.unique(codes, return_inverse=True)
        count_N = np.bincount(place, counts).astype(np.int64)
    if not channels:
        raise UserError("no training images to choose a palette from")
    return (code_N[:, None] // 256 ** np.arange(channels) % 256).astype(np.float32), count_N


def _k_means(colour_NC: np.ndarray, count_N: np.ndarray, k: int) -> np.ndarray:
    """Return at most k distinct colours in whole levels."""
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(k, random_state=0, batch_size=4096).fit(colour_NC, sample_weight=count_N)
    return np.unique(np.asarray(found.cluster_centers_).round().astype(np.float32), axis=0)

"""Patches of pixels: as continuous vectors with a measured scale, or of a binary image as categories.

B batch · L tokens · C, H, W channels, rows, columns of an image · E token channels (C p p, in the order (c p q)); bits
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from mar.core.devices import double
from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.options import between
from mar.core.spec import DataSpec
from mar.core.tokens import Categories, Vectors
from mar.tokenizers.base import Tokenizer, TokenizerOptions, moments

_LARGEST_BINARY = 3  # pixels: 2^9 categories; a softmax over 2^16 is no longer small


def patchify(x_BCHW: torch.Tensor, p: int) -> torch.Tensor:
    """(B, C, H, W) or (B, T, C, H, W) -> (B, L, C p p): p×p patches, row-major in each frame; (c p q), as MAR's."""
    if x_BCHW.ndim == 5:
        return patchify(x_BCHW.flatten(0, 1), p).unflatten(0, x_BCHW.shape[:2]).flatten(1, 2)
    return x_BCHW.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(token_BLE: torch.Tensor, shape: tuple[int, ...], p: int) -> torch.Tensor:
    """(B, L, C p p) -> (B, C, H, W), the inverse of ``patchify``; ``shape`` is the token grid's, (H / p, W / p), or of
    videos (T, H / p, W / p)."""
    if len(shape) == 3:
        frames = token_BLE.unflatten(1, (shape[0], -1))
        return unpatchify(frames.flatten(0, 1), shape[1:], p).unflatten(0, frames.shape[:2])
    return token_BLE.unflatten(2, (-1, p, p)).unflatten(1, shape).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def patch_grid(shape: tuple[int, ...], p: int, largest: int | None = None) -> tuple[int, ...]:
    """Return the token grid (H / p, W / p) of (C, H, W) images, or (T, H / p, W / p) of (T, C, H, W) videos.

    Raises:
        UserError: p does not divide the size; the message gives the nearest patches (at most ``largest``) and sizes.
    """
    if len(shape) not in (3, 4):
        raise UserError(f"patches are cut from images of shape (C, H, W), not {shape}: choose a data set of images")
    height, width = shape[-2:]
    if p >= 1 and height % p == 0 and width % p == 0:
        return (*shape[:-3], height // p, width // p)
    common = math.gcd(height, width)
    divisors = [d for d in range(1, min(common, largest or common) + 1) if common % d == 0]
    near = sorted(sorted(divisors, key=lambda d: abs(d - p))[:3])
    sizes = {f"{max(1, height // p + more) * p}x{max(1, width // p + more) * p}": None for more in (0, 1) if p >= 1}
    others = f", or images of {' or '.join(sizes)}" if sizes else ""
    fitting = " or ".join(map(str, near))
    raise UserError(f"{height}x{width} images do not divide into patches of {p}: use tokenizer.patch={fitting}{others}")


@dataclass(frozen=True)
class PatchesOptions(TokenizerOptions):
    patch: int = 4  # side of a patch in pixels
    scale: Literal["global", "channel"] = "global"  # one mean and deviation, or one for each token channel


class Patches(Tokenizer):
    """token = ((v + u) · 2 / levels − 1 − shift) / scale, with v the integer level and u uniform in [0, 1)."""

    Options = PatchesOptions
    token: Vectors
    shift: torch.Tensor  # (E,)
    scale: torch.Tensor  # (E,)

    def __init__(self, spec: DataSpec, options: PatchesOptions) -> None:
        super().__init__()
        self.shape, self.time = patch_grid(spec.shape, options.patch), spec.modality == "video"
        if not 2 <= spec.levels <= 256:
            raise UserError(f"tokenizer patches needs 2 to 256 integer levels, not {spec.levels}: use images")
        self.options, self.levels = options, spec.levels
        self.token = Vectors(spec.shape[-3] * options.patch**2)
        self.dimensions = math.prod(spec.shape)
        self.register_buffer("shift", torch.zeros(self.token.width))
        self.register_buffer("scale", torch.ones(self.token.width))

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Measure mean and standard deviation of the dequantised values, the variance of the noise included."""
        rows = (self._middle(patchify(x.cpu(), self.options.patch)).flatten(0, 1) for x in batches)
        mean_E, second_E = moments(rows, self.options.scale == "global")
        bin_variance = (2.0 / self.levels) ** 2 / 12.0  # keeps the scale positive for a constant pixel
        self.shift.copy_(mean_E)
        self.scale.copy_((second_E - mean_E.square()).clamp(min=0.0).add(bin_variance).sqrt())

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, …) integers -> (B, L, E) float32. One draw of ``noise`` covers the whole example."""
        y = self._middle(x) if noise is None else self._to_unit(x + noise.uniform(x.shape[1:].numel()).reshape(x.shape))
        return (patchify(y, self.options.patch) - self.shift) / self.scale

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L, E) -> (B, C, H, W) uint8: the level whose bin holds the value, clamped to the valid levels."""
        y = unpatchify(token.float() * self.scale + self.shift, self.shape, self.options.patch)
        return ((y + 1.0) * (self.levels / 2.0)).floor().clamp(0, self.levels - 1).to(torch.uint8)

    @property
    def log_jacobian(self) -> float:
        """H W C log(2 / levels) − L Σ_E log scale."""
        n_tokens = math.prod(self.shape)
        return self.dimensions * math.log(2.0 / self.levels) - n_tokens * float(double(self.scale).log().sum())

    def _to_unit(self, v: torch.Tensor) -> torch.Tensor:
        """[0, levels) -> [-1, 1)."""
        return v * (2.0 / self.levels) - 1.0

    def _middle(self, x: torch.Tensor) -> torch.Tensor:
        return self._to_unit(x.float() + 0.5)


@dataclass(frozen=True)
class BinaryPatchesOptions(TokenizerOptions):
    patch: int = 2  # side of a patch in pixels
    bounds: ClassVar = {"patch": between(1, _LARGEST_BINARY)}


class BinaryPatches(Tokenizer):
    """p×p bits are one of 2^(p p) categories, the first pixel (row-major) the lowest bit.

    The joint of the pixels stays exact.
    """

    Options = BinaryPatchesOptions
    bit_E: torch.Tensor

    def __init__(self, spec: DataSpec, options: BinaryPatchesOptions) -> None:
        super().__init__()
        if spec.levels != 2 or spec.shape[-3] != 1:
            raise UserError(
                f"tokenizer binary-patches needs binary images of one channel, not {spec.shape} with {spec.levels} "
                f"levels: use data.kind=binarized-mnist, or tokenizer.kind=pixels or patches"
            )
        self.options = options
        self.shape = patch_grid(spec.shape, options.patch, _LARGEST_BINARY)
        self.time = spec.modality == "video"
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

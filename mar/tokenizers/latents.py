"""Latents without their autoencoder, for imported models (``kl`` is the tokenizer with an autoencoder).

B batch · L tokens · C latent channels · h, w rows, columns of latents · E token channels (C p p, in the order (c p q))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.options import POSITIVE
from mar.core.spec import DataSpec
from mar.core.tokens import Vectors
from mar.tokenizers.base import Tokenizer, TokenizerOptions
from mar.tokenizers.patches import patch_grid, patchify, unpatchify


@dataclass(frozen=True)
class LatentsOptions(TokenizerOptions):
    patch: int = 1  # side of a token in latents
    scale: float = 1.0  # token = latent · scale
    bounds: ClassVar = {"scale": POSITIVE}


class Latents(Tokenizer):
    """token = latent · scale."""

    Options = LatentsOptions
    real: ClassVar[bool] = True
    dimensions = 0
    token: Vectors

    def __init__(self, spec: DataSpec, options: LatentsOptions) -> None:
        super().__init__()
        if spec.modality != "latent":
            raise UserError(
                f"tokenizer latents reads real latents, not {spec.modality}: use tokenizer.kind=kl with an "
                "autoencoder, or patches for images"
            )
        self.spec, self.options = spec, options
        self.shape = patch_grid(spec.shape, options.patch)
        self.token = Vectors(spec.shape[0] * options.patch**2)

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, C, h, w) -> (B, L, E) float32; latents need no dequantisation."""
        return patchify(x.float() * self.options.scale, self.options.patch)

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L, E) -> (B, C, h, w) float32."""
        return unpatchify(token.float(), self.shape, self.options.patch) / self.options.scale

    @property
    def log_jacobian(self) -> float:
        """C h w log scale: likelihoods are those of the latents, whatever the scale."""
        return math.prod(self.spec.shape) * math.log(self.options.scale)

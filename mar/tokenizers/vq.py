"""Codebook indices of a VQ model as categories.

B batch · L tokens (h w) · h, w rows, columns of latents · D codebook width · V its entries
N tokens of a batch
"""

from __future__ import annotations

import torch

from mar.core.devices import double
from mar.core.noise import Noise
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.tokenizers.autoencoder import AutoencoderOptions, AutoencoderTokenizer


class VQ(AutoencoderTokenizer):
    """Each position of the latents is one category, the number of the nearest codebook entry."""

    kind = "vq"
    token: Categories

    def __init__(self, spec: DataSpec, options: AutoencoderOptions) -> None:
        super().__init__(spec, options)
        self.shape = self.latent_shape
        self.token = Categories(self.config["num_vq_embeddings"])

    @torch.no_grad()
    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, C, H, W) uint8 images, or (B, 1, h, w) indices of a cache, -> (B, L) int64."""
        if x.dtype != torch.uint8:
            return x.flatten(1).long()
        with torch.autocast(x.device.type, enabled=False):
            latents = [self.load().encode(self.to_unit(part)).latents for part in self.parts(x)]
            index = [self.load().quantize(part)[2][2].reshape(len(part), -1) for part in latents]
        return torch.cat(index)

    @torch.no_grad()
    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L) int64 -> (B, C, H, W) uint8."""
        with torch.autocast(token.device.type, enabled=False):
            return torch.cat([self.to_levels(self._pixels(part)) for part in self.parts(token)])

    def _pixels(self, token: torch.Tensor) -> torch.Tensor:
        model = self.load()
        code = model.quantize.embedding(token).mT.unflatten(-1, self.shape)  # (B, D, h, w)
        spatial = code if self.config.get("norm_type") == "spatial" else None
        return model.decoder(model.post_quant_conv(code), spatial)  # decode() would quantise again


def perplexity(index_N: torch.Tensor, size: int) -> torch.Tensor:
    """Return exp of the entropy of the usage of ``size`` codebook entries."""
    share_V = double(torch.bincount(index_N, minlength=size)) / len(index_N)
    return torch.special.entr(share_V).sum().exp().float()

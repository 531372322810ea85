"""Reconstruction by an autoencoder: images beside their reconstructions, the error, the use of the codebook.

A file of its own, since its one importer is a command (``mar tokenizer score``) that loads torch only when it runs.

N images · C, H, W channels, rows, columns · V entries of a codebook
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.data.base import Split, evenly_spaced
from mar.tokenizers.autoencoder import AutoencoderTokenizer
from mar.tokenizers.vq import perplexity


@dataclass(frozen=True)
class Reconstruction:
    """Errors of N reconstructed images.

    Attributes:
        mean_square_error: per value, of images in [0, 1].
        psnr_db: 10 log10(1 / error), the mean over images.
        codebook_used: share of the entries that any image uses; None without a codebook.
        codebook_perplexity: exp of the entropy of the entries' use over all images, at most V.
    """

    n_images: int
    mean_square_error: float
    psnr_db: float
    codebook_used: float | None = None
    codebook_perplexity: float | None = None


def reconstruct(
    tokenizer: AutoencoderTokenizer, split: Split, limit: int | None, seed: int, batch_size: int,
    progress: Callable[[int, int], None],
) -> tuple[torch.Tensor, torch.Tensor, Reconstruction]:  # fmt: skip
    """Return images, their reconstructions (N, C, H, W) uint8 and the errors, of ``limit`` images spread over a split.

    A KL autoencoder decodes a sample from the posterior, as generators are trained on.
    """
    index, device = evenly_spaced(len(split), limit), next(tokenizer.buffers()).device
    images, decoded, tokens = [], [], []
    for part in index.split(batch_size):
        x, _ = split.batch(part)
        token = tokenizer.encode(x.to(device), stream(seed, "reconstruction", part, device))
        images.append(x)
        decoded.append(tokenizer.decode(token).cpu())
        if isinstance(tokenizer.token, Categories):
            tokens.append(token.cpu())
        progress(sum(map(len, images)), len(index))
    x, y = torch.cat(images), torch.cat(decoded)
    error_N = ((x.double() - y.double()) / (tokenizer.spec.levels - 1)).square().flatten(1).mean(1)
    psnr = float((-10.0 * error_N.clamp(min=1e-10).log10()).mean())
    used, effective = None, None
    if isinstance(tokenizer.token, Categories):
        index_N = torch.cat(tokens).flatten()
        used = len(index_N.unique()) / tokenizer.token.vocabulary
        effective = float(perplexity(index_N, tokenizer.token.vocabulary))
    return x, y, Reconstruction(len(x), float(error_N.mean()), psnr, used, effective)


def side_by_side(x_NCHW: torch.Tensor, y_NCHW: torch.Tensor, columns: int = 16) -> torch.Tensor:
    """Return alternating rows of images and of their reconstructions, for a grid of ``columns``."""
    n = min(len(x_NCHW), 4 * columns) // columns * columns or len(x_NCHW)
    x, y = x_NCHW[:n].split(min(columns, n)), y_NCHW[:n].split(min(columns, n))
    return torch.cat([row for pair in zip(x, y, strict=True) for row in pair])

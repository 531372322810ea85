"""Untrained autoencoders of the digits (8x8, 17 levels), made by the tests: 4x4 latents of 3 channels."""

from __future__ import annotations

from pathlib import Path

import torch

from mar.core.spec import DataSpec
from mar.training.autoencoder import Architecture

SPEC = DataSpec((1, 8, 8), 17, 10)
SMALL = Architecture(channels=(8, 8), latent=3, codebook=20)


def save(kind: str, folder: Path, seed: int = 0, spec: DataSpec = SPEC) -> Path:
    """A diffusers folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Architecture(kind, SMALL.channels, 1, SMALL.latent, SMALL.codebook).build(spec)  # type: ignore[arg-type]
        if kind == "vq":
            model.quantize.embedding.weight.data.normal_()
    model.save_pretrained(folder)
    return folder


def images(n: int, spec: DataSpec = SPEC) -> torch.Tensor:
    """Random images with structure."""
    ramp = torch.linspace(0.2, 1.0, spec.shape[2])
    u = torch.rand(n, *spec.shape, generator=torch.Generator().manual_seed(1))
    return (u * ramp * (spec.levels - 1)).round().to(torch.uint8)

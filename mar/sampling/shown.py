"""Samples as what they are: pictures, text, sound or numbers.

N samples · C, H, W shape of an example
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mar.data import mu_law
from mar.data.base import DataSpec
from mar.sampling.output import write_samples
from mar.sampling.pictures import image_grid
from mar.sampling.sound import save_sound, save_wav
from mar.sampling.text import save_text


def save_samples(
    x_NCHW: torch.Tensor, spec: DataSpec, folder: Path, frames: Sequence[torch.Tensor] | None = None
) -> str:
    """Write what ``mar sample`` promises for this kind of data; ``frames`` are of images. Returns the files' names."""
    if spec.modality == "image":
        write_samples(x_NCHW, spec.levels, folder, frames)
        return "grid.png, images.npz, images/" + ("" if frames is None else ", generation.gif")
    folder.mkdir(parents=True, exist_ok=True)
    if spec.modality == "latent":
        np.save(folder / "latents.npy", x_NCHW.numpy())
        return "latents.npy (images with --vae AUTOENCODER)"
    np.savez_compressed(folder / "samples.npz", samples=x_NCHW.flatten(1).numpy(), levels=spec.levels)
    if spec.modality == "text":
        save_text(x_NCHW, spec, folder / "samples.txt")
        return "samples.txt, samples.npz"
    if spec.modality == "audio":
        save_sound(x_NCHW, spec, folder)
        return "sounds/, spectrograms.png, samples.npz"
    return "samples.npz"


def preview(x_NCHW: torch.Tensor, spec: DataSpec, path: Path) -> None:
    """A quick look, at ``path`` with the suffix of its kind; sounds one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if spec.modality == "image":
        image_grid(x_NCHW, spec.levels, columns=10).save(path.with_suffix(".png"))
    elif spec.modality == "text":
        save_text(x_NCHW, spec, path.with_suffix(".txt"))
    elif spec.modality == "audio":
        save_wav(mu_law.decode(x_NCHW.flatten()).numpy(), spec.rate, path.with_suffix(".wav"))
    else:
        np.savez_compressed(path.with_suffix(".npz"), samples=x_NCHW.flatten(1).cpu().numpy(), levels=spec.levels)

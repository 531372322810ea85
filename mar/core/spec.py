"""What a data set is: examples of integer levels with an optional class, in three splits.

N examples · B batch

A kind of data set is a subclass of ``DataSource``: a frozen dataclass ``Options`` and a classmethod ``load``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Latents:
    """What a cache holds in place of images: a KL autoencoder's means and standard deviations, (2 C, h, w) float32, or
    a VQ model's indices, (1, h, w) int16 or int32.

    Attributes:
        kind: of the tokenizer that reads them.
        folder: of the autoencoder that made them.
        sha256: of that autoencoder.
        mean: of each channel over the training split, the variance of the posterior included; () of indices.
        std: the same.
    """

    kind: Literal["kl", "vq"]
    folder: str
    sha256: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class DataSpec:
    """What one example looks like.

    Attributes:
        shape: of one example: (C, H, W) for images and latents, (1, 1, L) for all else.
        levels: integer values 0..levels-1 (2 binary, 17 digits, 256 images); 0 for real values.
        n_classes: 0 when there are no labels.
        modality: what an example is shown as.
        alphabet: of text: the character of each level; () where the levels are bytes.
        end: the level that ends an example shorter than its shape, which it fills up; None: all are of one length.
        rate: of audio: samples a second; level v is mu-law code v (``mar.data.audio``).
        latents: of a cache, whose examples they are; all else describes the images that they decode to.
    """

    shape: tuple[int, ...]
    levels: int
    n_classes: int = 0
    class_names: tuple[str, ...] = ()
    modality: Literal["image", "text", "audio", "vector", "latent"] = "image"
    alphabet: tuple[str, ...] = ()
    end: int | None = None
    rate: int = 0
    latents: Latents | None = None

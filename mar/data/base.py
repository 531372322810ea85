"""What a data set is: examples of integer levels with an optional class, in three splits.

N examples · B batch

A kind of data set is a subclass of ``DataSource``: a frozen dataclass ``Options`` and a classmethod ``load``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch


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
        rate: of audio: samples a second; level v is mu-law code v (``mar.data.mu_law``).
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


class Split:
    """Random access to examples by number: all that training, scoring and sampling ever ask for."""

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x (B, *shape) uint8 (int16 above 256 levels, float32 for real values) and label_B (int64), or None."""
        raise NotImplementedError


@dataclass(frozen=True)
class TensorSplit(Split):
    """A split that fits in memory."""

    x: torch.Tensor
    label: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.x[index_B], None if self.label is None else self.label[index_B]


@dataclass(frozen=True)
class About:
    """What a run remembers of its data, so that it loads and samples where they are absent."""

    name: str
    spec: DataSpec
    fingerprint: str
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Three splits of one data set.

    Attributes:
        fingerprint: identifies the exact examples (a hash of the content).
        notes: what a reader of its figures should know.
        source: of a cache: the recipe's ``data`` that it was made from, and that data set's fingerprint.
    """

    name: str
    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    notes: dict[str, str] = field(default_factory=dict)
    source: tuple[dict[str, Any], str] | None = None

    @property
    def about(self) -> About:
        """All but the examples."""
        return About(self.name, self.spec, self.fingerprint, self.notes)

    def split(self, name: str) -> Split:
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True)
class DataOptions:
    """Base of every data kind's options."""


class DataSource:
    """A kind of data set. ``load`` raises UserError in one line: which file, what was expected, where to get it."""

    Options: ClassVar[type] = DataOptions
    name: ClassVar[str]

    @classmethod
    def load(cls, options: DataOptions) -> Data:
        """The three splits. Examples and splits are a function of the options and the files alone."""
        raise NotImplementedError


def spread(total: int, wanted: int | None) -> torch.Tensor:
    """The numbers of ``wanted`` (None, or too many: all) of ``total`` examples, evenly spread, always the same.

    Published files may be sorted: the first examples of a split are then another population than the split.
    """
    count = total if wanted is None else min(wanted, total)
    return torch.arange(count) * total // max(1, count)


def fingerprint(*tensors: torch.Tensor | None) -> str:
    """A sha256 over types, shapes and contents, in this order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none;")
        else:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()

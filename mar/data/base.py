"""What a data set is: examples of integer levels with an optional class, in three splits.

N examples · B batch

A kind of data set is a subclass of ``DataSource``: a frozen dataclass ``Options`` and a classmethod ``load``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch


@dataclass(frozen=True)
class DataSpec:
    """What one example looks like.

    Attributes:
        shape: of one example: (C, H, W) for images, (1, 1, L) for all else.
        levels: integer values 0..levels-1 (2 binary, 17 digits, 256 images); 0 for real values.
        n_classes: 0 when there are no labels.
        modality: what an example is shown as.
        alphabet: of text: the character of each level; () where the levels are bytes.
        rate: of audio: samples a second; level v is mu-law code v (``mar.data.mu_law``).
    """

    shape: tuple[int, ...]
    levels: int
    n_classes: int = 0
    class_names: tuple[str, ...] = ()
    modality: Literal["image", "text", "audio", "vector"] = "image"
    alphabet: tuple[str, ...] = ()
    rate: int = 0


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
class Data:
    """Three splits of one data set. ``fingerprint`` identifies the exact examples (a hash of the content)."""

    name: str
    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    notes: dict[str, str] = field(default_factory=dict)

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

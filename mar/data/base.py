"""What a data set is: examples of integer levels with an optional class, in three splits.

N examples · B batch
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class DataSpec:
    """What one example looks like.

    Attributes:
        shape: of one example: (C, H, W) for images, (T,) for series.
        levels: integer values 0..levels-1 (2 binary, 17 digits, 256 images); 0 for real values.
        n_classes: 0 when there are no labels.
    """

    shape: tuple[int, ...]
    levels: int
    n_classes: int = 0
    class_names: tuple[str, ...] = ()


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

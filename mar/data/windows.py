"""Windows of one length, cut out of a long series when asked for.

T length of the series · N windows · L length of a window · B batch
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mar.data.base import Split


@dataclass(frozen=True)
class Windows(Split):
    """Window n is series_T[start_N[n] : start_N[n] + length], of class label_N[n]."""

    series_T: torch.Tensor
    start_N: torch.Tensor
    length: int
    label_N: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.start_N)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x (B, 1, 1, L) in the type of the series, and label_B."""
        at_BL = self.start_N[index_B][:, None] + torch.arange(self.length)
        return self.series_T[at_BL][:, None, None], None if self.label_N is None else self.label_N[index_B]


def starts(first: int, end: int, length: int, stride: int) -> torch.Tensor:
    """start_N of the windows that lie in first..end-1, one every ``stride``; what is left at the end is in none."""
    return torch.arange(first, max(first, end - length + 1), stride)

"""Windows of one length, cut out of a long series when asked for.

T length of the series · N windows · R stretches that windows are cut from · L length of a window · B batch
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mar.data.base import Split
from mar.errors import UserError


@dataclass(frozen=True)
class Windows(Split):
    """Window n is series_T[start_N[n] : start_N[n] + length], of class label_N[n].

    The stretches that they are cut from, each at least ``length`` long, are given as (first, end) in span_R2.
    """

    series_T: torch.Tensor
    start_N: torch.Tensor
    length: int
    label_N: torch.Tensor | None = None
    span_R2: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.start_N)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x (B, 1, 1, L) in the type of the series, and label_B."""
        at_BL = self.start_N[index_B][:, None] + torch.arange(self.length)
        return self.series_T[at_BL][:, None, None], None if self.label_N is None else self.label_N[index_B]


def sliding(split: Split, past: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Overlapping windows x (N, 1, 1, L) of all stretches, label_N, and given_NL: tokens that are not new.

    Every token is new once, with at least ``past`` tokens before it in its window, or all there are of its stretch.

    Raises:
        UserError: the examples are no windows of longer series; or ``past`` leaves a window nothing new.
    """
    if not isinstance(split, Windows) or split.span_R2 is None:
        raise UserError("a past is for windows of text and sound: the examples of this data set stand alone")
    length = split.length
    if not 0 <= past < length:
        raise UserError(f"a past of {past} tokens leaves nothing new in a window of {length}: less is possible")
    start, given, span = [], [], []
    for r, (first, end) in enumerate(split.span_R2.tolist()):
        done = first
        while done < end:
            at = min(max(first, done - past), end - length)
            start.append(at)
            given.append(done - at)
            span.append(r)
            done = at + length
    label_N = None
    if split.label_N is not None:  # of the window in a stretch that starts first
        of_R = torch.searchsorted(split.start_N, split.span_R2[:, 0].contiguous())
        label_N = split.label_N[of_R[torch.tensor(span)]]
    given_NL = torch.arange(length) < torch.tensor(given)[:, None]
    x, label_N = Windows(split.series_T, torch.tensor(start), length, label_N).batch(torch.arange(len(start)))
    return x, label_N, given_NL


def starts(first: int, end: int, length: int, stride: int) -> torch.Tensor:
    """start_N of the windows that lie in first..end-1, one every ``stride``; what is left at the end is in none."""
    return torch.arange(first, max(first, end - length + 1), stride)

"""The contract of data sets: examples of integer levels with an optional class, in three splits; windows of a series.

N examples or windows · B batch · T length of a series · R stretches that windows are cut from · L length of a window

A kind of data set is a subclass of ``DataSource``: a frozen dataclass ``Options`` and a classmethod ``load``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar

import torch

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.noise import Noise
from mar.core.options import Options
from mar.core.spec import DataSpec

SPLITS = ("train", "validation", "test")


class Split:
    """Random access to examples by number, the interface for training, scoring and sampling."""

    def __len__(self) -> int:
        raise NotImplementedError

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return x (B, *shape) uint8 (int16 above 256 levels, float32 for real values) and label_B (int64) or None."""
        raise NotImplementedError

    def training_batch(self, index_B: torch.Tensor, epoch_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return ``batch`` as it is seen in an epoch of training: a split may draw its examples anew."""
        return self.batch(index_B)


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
class Subset(Split):
    """Some examples of a split, in the order of their numbers ``index_N``."""

    split: Split
    index_N: torch.Tensor

    def __len__(self) -> int:
        return len(self.index_N)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.split.batch(self.index_N[index_B])


@dataclass(frozen=True)
class Binarised(Split):
    """Binary images whose pixels are drawn with given probabilities, by seed, split and example.

    Training draws them anew in each epoch; all else sees the draw of epoch 0.
    """

    probability: torch.Tensor  # (N, *shape), of a one
    label_N: torch.Tensor | None
    seed: int
    name: str  # of the split

    def __len__(self) -> int:
        return len(self.probability)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.training_batch(index_B, torch.zeros_like(index_B))

    def training_batch(self, index_B: torch.Tensor, epoch_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        p = self.probability[index_B]
        u = Noise(self.seed, f"data/binarise/{self.name}", index_B, epoch_B).uniform(p[0].numel())
        return (u.reshape(p.shape) < p).to(torch.uint8), None if self.label_N is None else self.label_N[index_B]


@dataclass(frozen=True)
class About:
    """The metadata that a run stores, so that it loads and samples without the data.

    Attributes:
        former: the fingerprint of the same data in earlier versions (names and sizes of files, not their content).
    """

    name: str
    spec: DataSpec
    fingerprint: str
    notes: dict[str, str] = field(default_factory=dict)
    former: str = ""

    def recorded_as(self, fingerprint: str) -> bool:
        """Return True if a file that holds ``fingerprint`` was made with these data; "" fits all."""
        return fingerprint in ("", self.fingerprint, self.former)

    def identity(self, recorded: str) -> str:
        """Return the fingerprint for a file that holds ``recorded`` or "": the former one if it holds that."""
        return self.former if recorded and recorded == self.former else self.fingerprint


@dataclass(frozen=True)
class Data:
    """Three splits of one data set.

    Attributes:
        fingerprint: identifies the exact examples (a hash of the content).
        notes: facts to state beside figures on these data.
        source: of a cache: the ``data`` section and the fingerprint of the encoded images.
        former: as in ``About``.
        token_bytes: mean bytes of text of a token of the test split; 0.0: no subwords, or a tokenizer that loses text.
        columns: reads another column of each split by name, for ``mar.data.conditions``; raises UserError.
        bare: the data before conditions took the place of classes.
    """

    name: str
    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    notes: dict[str, str] = field(default_factory=dict)
    source: tuple[dict[str, Any], str] | None = None
    former: str = ""
    token_bytes: float = 0.0
    columns: Callable[[str], Mapping[str, Any]] | None = None
    bare: Data | None = None

    @property
    def about(self) -> About:
        """The metadata without the examples."""
        return About(self.name, self.spec, self.fingerprint, self.notes, self.former)

    def split(self, name: str) -> Split:
        return (self.train, self.validation, self.test)[SPLITS.index(name)]


@dataclass(frozen=True)
class DataOptions(Options):
    """The base of the options of data kinds."""

    family: ClassVar[str] = "data"
    largest: ClassVar[float] = 2**31  # of a number of examples or characters


def check_shares(**shares: float) -> None:
    """Raise UserError unless the shares of examples for other splits leave some to train on."""
    if not (all(share > 0 for share in shares.values()) and sum(shares.values()) < 1):
        given = " and ".join(f"data.{name}={share}" for name, share in shares.items())
        raise UserError(f"{given} are no shares above 0 that leave some examples to train on")


class DataSource:
    """A kind of data set. ``load`` raises UserError in one line: the file, the expected content, the source."""

    Options: ClassVar[type] = DataOptions
    name: ClassVar[str]

    @classmethod
    def load(cls, options: DataOptions) -> Data:
        """Return the three splits, a function of the options and the files only."""
        raise NotImplementedError


def evenly_spaced(total: int, wanted: int | None) -> torch.Tensor:
    """Return the numbers of ``wanted`` evenly spaced examples of ``total``; all if None or too many.

    Published files may be sorted, so the first examples may not represent the split.
    """
    count = total if wanted is None else min(wanted, total)
    return torch.arange(count) * total // max(1, count)


def fingerprint(*tensors: torch.Tensor | None) -> str:
    """Return a sha256 over types, shapes and contents, in this order."""
    parts = (
        ("none;",) if x is None else (f"{x.dtype} {tuple(x.shape)};", x.contiguous().numpy().data) for x in tensors
    )
    return digest(*chain.from_iterable(parts))


@dataclass(frozen=True)
class Windows(Split):
    """Window n is series_T[start_N[n] : start_N[n] + length], of class label_N[n].

    span_R2 holds (first, end) of the stretches that the windows are cut from, each at least ``length`` long.
    """

    series_T: torch.Tensor
    start_N: torch.Tensor
    length: int
    label_N: torch.Tensor | None = None
    span_R2: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.start_N)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return x (B, 1, 1, L) in the type of the series, and label_B."""
        at_BL = self.start_N[index_B][:, None] + torch.arange(self.length)
        return self.series_T[at_BL][:, None, None], None if self.label_N is None else self.label_N[index_B]


def sliding(split: Split, past: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return overlapping windows x (N, 1, 1, L) of all stretches, label_N, and given_NL, the tokens that are not new.

    Every token is new in one window, with at least ``past`` tokens of its stretch before it, or all of them.

    Raises:
        UserError: the examples are not windows of longer series; or ``past`` leaves a window without new tokens.
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
    """Return start_N of the windows in first..end-1, one every ``stride``; the remainder at the end is dropped."""
    return torch.arange(first, max(first, end - length + 1), stride)

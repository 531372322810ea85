"""The handwritten digits of scikit-learn: 8x8, 17 levels, 1,797 examples. The default data set.

Alpaydin and Kaynak 1998 (UCI, test set of "Optical recognition of handwritten digits").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mar.core.errors import unknown
from mar.core.noise import stream
from mar.core.options import between
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, Data, DataOptions, DataSource, TensorSplit, fingerprint

_TEST = 360  # the last 20 % of the shuffle


@dataclass(frozen=True)
class DigitsOptions(DataOptions):
    validation: int = 72  # the examples before the test examples
    bounds: ClassVar = {"validation": between(1, 1000)}


class Digits(DataSource):
    """One fixed shuffle, then train, validation and test in this order: no option changes the test split."""

    Options = DigitsOptions
    name = "digits"

    @classmethod
    def load(cls, options: DigitsOptions) -> Data:
        package = find_spec("sklearn")  # reading its file takes a hundredth of the time of importing it
        assert package is not None and package.origin is not None  # a dependency
        table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
        pixels, labels = table[:, :-1], table[:, -1]
        # our own generator: the shuffle is the same whatever becomes of other libraries'
        order = stream(0, "data/digits/shuffle", len(pixels)).uniform(1)[:, 0].argsort(stable=True)
        x = torch.from_numpy(pixels).to(torch.uint8).reshape(-1, 1, 8, 8)[order]
        label = torch.from_numpy(labels).long()[order]
        sizes = [len(x) - _TEST - options.validation, options.validation, _TEST]
        train, validation, test = (TensorSplit(*part) for part in zip(x.split(sizes), label.split(sizes), strict=True))
        content = fingerprint(*(part for s in (train, validation, test) for part in (s.x, s.label)))
        spec = DataSpec((1, 8, 8), 17, 10, tuple("0123456789"))
        return Data(cls.name, spec, train, validation, test, content, columns=partial(_column, x, sizes))


def _column(x: torch.Tensor, sizes: list[int], name: str) -> dict[str, torch.Tensor]:
    """``ink``: the mean level of each digit, an example of a real-valued condition."""
    if name != "ink":
        raise unknown("column of digits:", name, ["ink"])
    return dict(zip(SPLITS, x.float().mean((1, 2, 3)).split(sizes), strict=True))

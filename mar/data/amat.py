"""Static binarised MNIST in Larochelle's .amat text files, plain or gzipped.

Each line is one image: 784 values, 0 or 1, between spaces (Larochelle and Murray 2011; Salakhutdinov and Murray 2008
drew the binarisation once). 50,000 / 10,000 / 10,000 images in an order of their own, without labels. Figures on it do
not compare with those on dynamically binarised MNIST.

N examples
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from mar.core.spec import DataSpec
from mar.data.base import Data, DataOptions, DataSource, TensorSplit, fingerprint
from mar.data.files import PublishedFile

_SIDE = 28
_HOME = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_PARTS = {  # name of the split: (name in the file, images, md5 of the unpacked file)
    "train": ("train", 50_000, "db28b1a6ae0fe70cbd3da91acf46e477"),
    "validation": ("valid", 10_000, "bf37822a04e94123630de6a7dfd9c9ef"),
    "test": ("test", 10_000, "14e41ae11040adba6ab8cb291eda0dd8"),
}


@dataclass(frozen=True)
class AmatOptions(DataOptions):
    path: str = ""  # the folder with the three files


def parse_amat(raw: bytes, width: int) -> torch.Tensor:
    """Return (N, width) uint8 of 0 and 1. Raises ValueError with the reason if ``raw`` is not such a text.

    Every value is a single character between white space, so that the text is read as bytes, without a parser.
    """
    text = np.frombuffer(raw, np.uint8)
    is_digit = text > ord(" ")
    value = text[is_digit] - ord("0")  # anything but 0 and 1 wraps to more than 1
    if value.size and value.max() > 1:
        strange = chr(int(text[is_digit][value > 1][0]))
        raise ValueError(f"it holds {strange!r}; every value is a single 0 or 1")
    if (is_digit[1:] & is_digit[:-1]).any():
        raise ValueError("it holds values of several digits; every value is a single 0 or 1")
    if not value.size or value.size % width:
        raise ValueError(f"it holds {value.size} values, which is not a positive multiple of {width}")
    ends = [0, *np.flatnonzero(text == ord("\n")).tolist(), len(text)]
    if any(np.count_nonzero(is_digit[a:b]) not in (0, width) for a, b in pairwise(ends)):
        raise ValueError(f"its lines do not have {width} values each")
    return torch.from_numpy(value.reshape(-1, width))


class BinarizedMnist(DataSource):
    """Static binarised MNIST, 28x28, two levels, the published three splits."""

    Options = AmatOptions
    name = "binarized-mnist"

    @classmethod
    def load(cls, options: AmatOptions) -> Data:
        notes: dict[str, str] = {}
        parts = [cls._part(options.path, split, notes) for split in _PARTS]
        train, validation, test = map(TensorSplit, parts)
        spec = DataSpec((1, _SIDE, _SIDE), 2)
        return Data(cls.name, spec, train, validation, test, fingerprint(*parts), notes)

    @classmethod
    def _part(cls, path: str, split: str, notes: dict[str, str]) -> torch.Tensor:
        """Return x (N, 1, 28, 28) uint8."""
        name, n, md5 = _PARTS[split]
        expected = f"{n:,} lines of {_SIDE**2} values 0 or 1, {2 * n * _SIDE**2:,} bytes unpacked, md5 {md5}"
        published = PublishedFile((f"binarized_mnist_{name}.amat",), expected, _HOME, md5)
        nested = ("binarized-mnist", "binarized_mnist", "BinarizedMNIST")
        _, x_NP = published.load(path, nested, lambda raw: parse_amat(raw, _SIDE**2), notes)
        return x_NP.reshape(-1, 1, _SIDE, _SIDE)

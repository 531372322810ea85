"""MNIST, Fashion-MNIST and static binarised MNIST from their published files, plain or gzipped.

The idx format (LeCun, Cortes, Burges; yann.lecun.com/exdb/mnist): two zero bytes, a type byte (8: unsigned byte), the
number of dimensions, each dimension as a big-endian uint32, then the values in row-major order.

Larochelle's .amat text files: each line is one image, 784 values, 0 or 1, between spaces (Larochelle and Murray 2011;
Salakhutdinov and Murray 2008 drew the binarisation once). 50,000 / 10,000 / 10,000 images in an order of their own,
without labels. Figures on it do not compare with those on dynamically binarised MNIST.

N examples
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import ClassVar

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.options import at_least
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, Binarised, Data, DataOptions, DataSource, TensorSplit, fingerprint
from mar.data.files import PublishedFile

_SIDE = 28
_HOME = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_PARTS = {  # name of the split: (name in the file, images, md5 of the unpacked file)
    "train": ("train", 50_000, "db28b1a6ae0fe70cbd3da91acf46e477"),
    "validation": ("valid", 10_000, "bf37822a04e94123630de6a7dfd9c9ef"),
    "test": ("test", 10_000, "14e41ae11040adba6ab8cb291eda0dd8"),
}


@dataclass(frozen=True)
class IdxOptions(DataOptions):
    path: str = ""  # the folder with the four files
    validation: int = 5000  # the last training examples
    bounds: ClassVar = {"validation": at_least(1)}


def parse_idx(raw: bytes, ndim: int) -> torch.Tensor:
    """Return a uint8 tensor of ``ndim`` dimensions. Raises ValueError with the reason if ``raw`` is not such a file."""
    magic = bytes([0, 0, 8, ndim])
    if raw[:4] != magic:
        raise ValueError(f"it starts with 0x{raw[:4].hex()} instead of the magic number 0x{magic.hex()}")
    start = 4 + 4 * ndim
    if len(raw) < start:
        raise ValueError(f"it ends within its header, after {len(raw)} bytes")
    shape = struct.unpack(f">{ndim}I", raw[4:start])
    if len(raw) != start + prod(shape):
        promised = "x".join(map(str, shape))
        raise ValueError(
            f"its header promises {promised} values ({start + prod(shape)} bytes), it has {len(raw)} bytes"
        )
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy())


class IdxImages(DataSource):
    """Images with labels in four idx files; subclasses name the published ones."""

    Options = IdxOptions
    nested: ClassVar[tuple[str, ...]]  # folders inside data.path that downloads commonly have
    class_names: ClassVar[tuple[str, ...]]
    home: ClassVar[str]
    md5: ClassVar[dict[str, str]]  # of the unpacked image files

    @classmethod
    def load(cls, options: IdxOptions) -> Data:
        """Return the training examples without the last ``validation``, those, and the published test examples."""
        notes: dict[str, str] = {}
        x_train, y_train = cls._part(options.path, "train", 60_000, notes)
        x_test, y_test = cls._part(options.path, "t10k", 10_000, notes)
        if x_train.shape[1:] != x_test.shape[1:]:
            sizes = ["x".join(map(str, x.shape[2:])) for x in (x_train, x_test)]
            raise UserError(f"{cls.name}: training images are {sizes[0]}, test images {sizes[1]}")
        cut = len(x_train) - options.validation
        if cut < 1:
            raise UserError(f"data.validation={options.validation} leaves none of {len(x_train)} examples to train on")
        parts = (x_train[:cut], y_train[:cut], x_train[cut:], y_train[cut:], x_test, y_test)
        train, validation, test = map(TensorSplit, parts[::2], parts[1::2])
        spec = DataSpec(tuple(x_train.shape[1:]), 256, len(cls.class_names), cls.class_names)
        return Data(cls.name, spec, train, validation, test, fingerprint(*parts), notes)

    @classmethod
    def _part(cls, path: str, part: str, n: int, notes: dict[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x (N, 1, H, W) uint8 and label_N int64 of "train" or "t10k"."""
        images = cls._published(part, "images", 3, f"{n:,} images of 28x28, {16 + 784 * n:,} bytes unpacked")
        labels = cls._published(part, "labels", 1, f"{n:,} labels, {8 + n:,} bytes unpacked")
        image_file, x = images.load(path, cls.nested, lambda raw: parse_idx(raw, 3), notes)
        label_file, label_N = labels.load(path, cls.nested, lambda raw: parse_idx(raw, 1), notes)
        if len(x) == 0:
            raise images.damaged(image_file, "it holds no images")
        if len(x) != len(label_N):
            raise labels.damaged(label_file, f"it has {len(label_N)} labels for {len(x)} images")
        if int(label_N.max()) >= len(cls.class_names):
            raise labels.damaged(label_file, f"it has a label {int(label_N.max())} of {len(cls.class_names)} classes")
        return x[:, None], label_N.long()

    @classmethod
    def _published(cls, part: str, what: str, ndim: int, expected: str) -> PublishedFile:
        names = (f"{part}-{what}-idx{ndim}-ubyte", f"{part}-{what}.idx{ndim}-ubyte")
        md5 = cls.md5.get(names[0], "")
        return PublishedFile(names, expected + (f", md5 {md5}" if md5 else ""), cls.home, md5)


class Mnist(IdxImages):
    """Handwritten digits, 60,000 + 10,000, 28x28 (LeCun et al. 1998)."""

    name = "mnist"
    nested = ("mnist", "MNIST", "MNIST/raw", "raw")
    class_names = tuple("0123456789")
    home = "https://yann.lecun.com/exdb/mnist or its mirror https://ossci-datasets.s3.amazonaws.com/mnist"
    md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    }


class FashionMnist(IdxImages):
    """Pictures of clothes in MNIST's form (Xiao et al. 2017)."""

    name = "fashion-mnist"
    nested = ("fashion-mnist", "FashionMNIST", "FashionMNIST/raw", "data/fashion", "raw")
    class_names = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    home = "https://github.com/zalandoresearch/fashion-mnist"
    md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    }


@dataclass(frozen=True)
class DynamicOptions(IdxOptions):
    validation: int = 10_000  # the last training examples
    seed: int = 0  # of the binarisation
    bounds: ClassVar = {"validation": at_least(1), "seed": at_least(0)}


class DynamicMnist(Mnist):
    """MNIST, each pixel a one with the probability value / 255 (Salakhutdinov and Murray 2008), drawn in each epoch."""

    Options = DynamicOptions
    name = "dynamic-mnist"

    @classmethod
    def load(cls, options: DynamicOptions) -> Data:
        grey, splits = super().load(options), {}
        for name in SPLITS:
            part = grey.split(name)
            assert isinstance(part, TensorSplit)
            splits[name] = Binarised(part.x / 255.0, part.label, options.seed, name)
        content = digest(grey.fingerprint, f"binarised {options.seed}")
        return replace(grey, **splits, spec=replace(grey.spec, levels=2), fingerprint=content)


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

"""Downsampled ImageNet in its two published versions. Their likelihoods do not compare: the pixels differ.

imagenet-oord: van den Oord et al. 2016, "Pixel recurrent neural networks", 32x32 and 64x64, without classes; the one of
most published bits/dim. Folders of PNG files or one array a split: ``train_32x32``, ``valid_32x32``.
imagenet-chrabaszcz: Chrabaszcz et al. 2017, "A downsampled variant of ImageNet", box filter, 1,000 classes:
``train_data_batch_1.npz``, …, ``val_data.npz``, or the same files as pickles, without ``.npz``.

N examples · B batch
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.noise import stream
from mar.core.options import at_least
from mar.core.readers import read_npz, reading, unpickled
from mar.core.spec import DataSpec
from mar.data.base import Data, DataOptions, DataSource, Split, Subset, fingerprint
from mar.data.files import contents, folder_at, walk
from mar.data.folder import FolderOptions, FolderSplit

_BATCHES = 10
_CLASSES = tuple(map(str, range(1000)))
_HOME = "get them from https://image-net.org/download-images.php"


@dataclass(frozen=True)
class SmallOptions(DataOptions):
    path: str = ""  # the folder with the files, or with their folders
    size: Literal[8, 16, 32, 64] = 32  # side of the images
    validation: int = 10000  # training images, drawn; 0: trains on all, and validates on the test images
    bounds: ClassVar = {"validation": at_least(0)}


@dataclass(frozen=True)
class Joined(Split):
    """Arrays (N, C, H, W) or (N, H, W, C), one after the other, each with its labels or None."""

    parts: tuple[np.ndarray, ...]
    label_N: torch.Tensor | None = None

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        ends = np.cumsum([len(part) for part in self.parts])
        of_B = np.searchsorted(ends, index_B.numpy(), side="right")
        chosen = [self.parts[k][int(i) - int(ends[k])] for k, i in zip(of_B, index_B, strict=True)]
        x = torch.from_numpy(np.stack(chosen))
        return x if x.shape[1] == 3 else x.permute(0, 3, 1, 2), None if self.label_N is None else self.label_N[index_B]


class SmallImageNet(DataSource):
    """1.28 million training images; the 50,000 published validation images are the test split, as in papers."""

    Options = SmallOptions

    @classmethod
    def load(cls, options: SmallOptions) -> Data:
        train, test, content, notes = cls._published(options)
        n = len(train)
        if options.validation >= n:
            raise UserError(f"data.validation={options.validation} leaves none of {n:,} images to train on")
        validation: Split = test
        if options.validation:
            order_N = stream(0, "data/small-imagenet/cut", torch.tensor([n])).uniform(n)[0].argsort(stable=True)
            held, kept = order_N[: options.validation].sort().values, order_N[options.validation :].sort().values
            train, validation = Subset(train, kept), Subset(train, held)
        else:
            notes["validation"] = "the validation split is the test split"
        names = () if test.batch(torch.tensor([0]))[1] is None else _CLASSES
        spec = DataSpec((3, options.size, options.size), 256, len(names), names)
        return Data(cls.name, spec, train, validation, test, digest(f"{options.validation};", content), notes)

    @classmethod
    def _published(cls, options: SmallOptions) -> tuple[Split, Split, str, dict[str, str]]:
        """Return the published training and validation images, their fingerprint, and notes."""
        raise NotImplementedError


class Oord(SmallImageNet):
    """The version of PixelRNN, without classes."""

    name = "imagenet-oord"

    @classmethod
    def _published(cls, options: SmallOptions) -> tuple[Split, Split, str, dict[str, str]]:
        side = f"{options.size}x{options.size}"
        root = folder_at(options.path, f"train_{side} and valid_{side}, of PNG files, or train_{side}.npy", _HOME)
        splits, hashes = [], []
        for name in (f"train_{side}", f"valid_{side}"):
            if (root / name).is_dir():
                listing = walk(root / name, (".png",))
                if not listing.files:
                    raise UserError(f"{root / name} holds no .png file; {_HOME}")
                own = FolderOptions(str(root), options.size, damaged_limit=0)
                splits.append(FolderSplit(root / name, listing.files, None, own))
                hashes += contents(root / name, listing.files)
            elif (root / f"{name}.npy").is_file():
                splits.append(Joined((_mapped(root / f"{name}.npy", options.size),)))
                hashes += contents(root, [f"{name}.npy"])
            else:
                raise UserError(f"{root} has no folder {name} and no {name}.npy; {_HOME}")
        return splits[0], splits[1], digest(*(f"{found};" for found in hashes)), {}


def _mapped(file: Path, size: int) -> np.ndarray:
    """Return an array mapped into memory. UserError: it holds no such images."""
    with reading(file, f"an array of {size}x{size} images"):
        found = np.load(file, mmap_mode="r", allow_pickle=False)
        if found.dtype != np.uint8 or found.shape[1:] not in ((3, size, size), (size, size, 3)) or not len(found):
            raise ValueError(f"{found.shape} values of {found.dtype}")
        return found


class Chrabaszcz(SmallImageNet):
    """The version with 1,000 classes."""

    name = "imagenet-chrabaszcz"

    @classmethod
    def _published(cls, options: SmallOptions) -> tuple[Split, Split, str, dict[str, str]]:
        root = folder_at(options.path, "train_data_batch_1.npz and so on, and val_data.npz", _HOME)
        found: dict[str, Path] = {}
        for name in walk(root, ("",)).files:
            if match := re.fullmatch(r"(?:.*/)?(train_data_batch_\d+|val_data)(\.npz)?", name):
                found.setdefault(match[1], root / name)
        numbers = sorted(int(name.rpartition("_")[2]) for name in found if name != "val_data")
        if not numbers or numbers != [*range(1, len(numbers) + 1)] or "val_data" not in found:
            held = ", ".join(sorted(found)) or "none"
            raise UserError(f"{root} lacks train_data_batch_N.npz, or val_data.npz (it has {held}); {_HOME}")
        notes = {} if len(numbers) == _BATCHES else {"batches": f"{len(numbers)} of the {_BATCHES} training files"}
        train = _batches([found[f"train_data_batch_{n}"] for n in numbers], options.size)
        test = _batches([found["val_data"]], options.size)
        parts = [torch.from_numpy(part) for split in (train, test) for part in split.parts]
        return train, test, fingerprint(*parts, train.label_N, test.label_N), notes


def _batches(files: list[Path], size: int) -> Joined:
    """Return the images of published files. UserError: their content is wrong."""
    images, labels = [], []
    for file in files:
        what = f"{size}x{size} images with classes 1 to 1000 (data.size)"
        with reading(file, what):
            content: dict[str, Any] = (
                read_npz(file, what, ("data", "labels")) if file.suffix else unpickled(file.read_bytes())
            )
            x, y = content["data"], np.array(content["labels"], np.int64)
            if x.dtype != np.uint8 or x.shape != (len(y), 3 * size * size) or not len(y):
                raise ValueError(f"{x.shape} values of {x.dtype} for {len(y)} labels")
            if y.min() < 1 or y.max() > len(_CLASSES):
                raise ValueError(f"a label {int(y.min() if y.min() < 1 else y.max())}")
            images.append(x.reshape(-1, 3, size, size))
            labels.append(torch.from_numpy(y) - 1)
    return Joined(tuple(images), torch.cat(labels))

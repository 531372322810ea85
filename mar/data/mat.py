"""Omniglot at 28x28 and Caltech-101 silhouettes, binary images from their published MATLAB files.

omniglot: ``chardata.mat`` of Burda et al. 2016, "Importance weighted autoencoders": 24,345 + 8,070 images of real
values in [0, 1], binarised anew each time.
caltech-silhouettes: ``caltech101_silhouettes_28_split1.mat`` of Marlin et al. 2010, "Inductive principles for
restricted Boltzmann machine learning": 4,100 + 2,264 + 2,307 images of 101 classes.
Both files have images by columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.options import at_least
from mar.core.readers import reading
from mar.core.spec import DataSpec
from mar.data.base import Binarised, Data, DataOptions, DataSource, TensorSplit, fingerprint
from mar.data.files import folder_at

_SIDE = 28


@dataclass(frozen=True)
class OmniglotOptions(DataOptions):
    path: str = ""  # the folder with chardata.mat
    validation: int = 1345  # the last training images
    seed: int = 0  # of the binarisation
    bounds: ClassVar = {"validation": at_least(1), "seed": at_least(0)}


class Omniglot(DataSource):
    """Characters of 50 alphabets, without classes."""

    Options = OmniglotOptions
    name = "omniglot"

    @classmethod
    def load(cls, options: OmniglotOptions) -> Data:
        home = "https://github.com/yburda/iwae/tree/master/datasets/OMNIGLOT"
        content = _read(options.path, "chardata.mat", ("data", "testdata"), home)
        every, test = (_images(content[name].T) for name in ("data", "testdata"))
        cut = len(every) - options.validation
        if cut < 1:
            raise UserError(f"data.validation={options.validation} leaves none of {len(every)} images to train on")
        parts = {"train": every[:cut], "validation": every[cut:], "test": test}
        splits: Any = {name: Binarised(x, None, options.seed, name) for name, x in parts.items()}
        content = fingerprint(*parts.values(), torch.tensor(options.seed))
        return Data(cls.name, DataSpec((1, _SIDE, _SIDE), 2), **splits, fingerprint=content)


@dataclass(frozen=True)
class SilhouettesOptions(DataOptions):
    path: str = ""  # the folder with caltech101_silhouettes_28_split1.mat


class Silhouettes(DataSource):
    """Outlines of objects in their published splits."""

    Options = SilhouettesOptions
    name = "caltech-silhouettes"

    @classmethod
    def load(cls, options: SilhouettesOptions) -> Data:
        home, splits = "https://people.cs.umass.edu/~marlin/data.shtml", ("train", "val", "test")
        names = [f"{split}_{what}" for split in splits for what in ("data", "labels")]
        content = _read(options.path, "caltech101_silhouettes_28_split1.mat", (*names, "classnames"), home)
        classes = tuple(str(np.squeeze(name)) for name in content["classnames"].ravel())
        parts: list[Any] = []
        for split in splits:
            x = _images(content[f"{split}_data"])
            label_N = torch.from_numpy(content[f"{split}_labels"].ravel().astype(np.int64)) - 1
            if len(label_N) != len(x) or not 0 <= int(label_N.min()) <= int(label_N.max()) < len(classes):
                held = f"{len(label_N)} labels of {len(classes)} classes for {len(x)} images"
                raise UserError(f"{options.path}: its {split} split has {held}; get it again from {home}")
            parts += [x.to(torch.uint8), label_N]
        train, validation, test = map(TensorSplit, parts[::2], parts[1::2])
        spec = DataSpec((1, _SIDE, _SIDE), 2, len(classes), classes)
        return Data(cls.name, spec, train, validation, test, fingerprint(*parts))


def _read(path: str, name: str, arrays: tuple[str, ...], home: str) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    file = folder_at(path, name, f"get it from {home}") / name
    what = f"the arrays {', '.join(arrays)}; {home}"
    with reading(file, what):
        found = loadmat(file, variable_names=arrays)
        if lacks := [array for array in arrays if array not in found]:
            raise ValueError(f"it has no array {lacks[0]}")
        return found


def _images(rows: np.ndarray) -> torch.Tensor:
    """Return x (N, 1, 28, 28) float32 in [0, 1] of images by columns. UserError: they are none."""
    if rows.ndim != 2 or rows.shape[1] != _SIDE**2 or not len(rows) or rows.min() < 0 or rows.max() > 1:
        raise UserError(f"images of {_SIDE}x{_SIDE} values in [0, 1] are wanted, not an array of shape {rows.shape}")
    x = torch.from_numpy(rows.astype(np.float32)).reshape(-1, 1, _SIDE, _SIDE)
    return x.transpose(2, 3).contiguous()

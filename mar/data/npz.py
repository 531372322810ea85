"""Vectors and series from an ``.npz`` file with its published splits: binary, categorical or real-valued.

A column beside the examples, for ``condition.column=NAME``, is arrays ``train_NAME`` and so on.

N examples · L values of an example
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.readers import read_npz
from mar.core.spec import DataSpec
from mar.data.base import Data, DataOptions, DataSource, TensorSplit, fingerprint

_NAMES = {
    "train": ("train", "train_data"),
    "validation": ("valid", "valid_data", "validation", "validation_data"),
    "test": ("test", "test_data"),
}
_EXPECTED = "an .npz file with arrays (examples, values) named train, valid and test, or train_data and so on"
_KEPT = f"{_EXPECTED}; the UCI sets with published splits are at https://github.com/mgermain/MADE"
_LARGEST = 2**15  # levels whose largest value int16 holds


@dataclass(frozen=True)
class NpzOptions(DataOptions):
    path: str = ""  # the file
    levels: int = 0  # of integers; 0: one more than the largest integer, and floating-point numbers are real values
    bounds: ClassVar = {"levels": (f"2 to {_LARGEST}, or 0 to find them", lambda n: n == 0 or 2 <= n <= _LARGEST)}


class Npz(DataSource):
    """Integers are levels; floating-point numbers are real values unless ``levels`` is given."""

    Options = NpzOptions
    name = "npz"

    @classmethod
    def load(cls, options: NpzOptions) -> Data:
        data = vectors_of(cls.name, read_splits(options.path), options.levels, options.path)
        return replace(data, columns=lambda column: read_splits(options.path, column=column))


def vectors_of(name: str, arrays: dict[str, np.ndarray], given: int, path: str) -> Data:
    """Return the data of an array (N, L) of each split; ``given``: as ``NpzOptions.levels``.

    Raises:
        UserError: the arrays are no such tables, or their values no levels.
    """
    widths = {split: array.shape[1:] for split, array in arrays.items()}
    if any(len(width) != 1 for width in widths.values()) or len(set(widths.values())) > 1:
        shapes = ", ".join(f"{split} {array.shape}" for split, array in arrays.items())
        raise UserError(f"{path}: its arrays differ in width or are no tables ({shapes}); {_EXPECTED}")
    if empty := [split for split, array in arrays.items() if not array.size]:
        raise UserError(f"{path}: its {empty[0]} split is empty; {_EXPECTED}")
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise UserError(f"{path}: its arrays are no numbers; {_EXPECTED}")
    real = not given and any(array.dtype.kind == "f" for array in arrays.values())
    levels = 0 if real else _levels(arrays, given, path)
    kind = np.float32 if real else np.uint8 if levels <= 256 else np.int16
    x = {split: torch.from_numpy(array.astype(kind))[:, None, None] for split, array in arrays.items()}
    if real and (damaged := [split for split, values in x.items() if not values.isfinite().all()]):
        raise UserError(f"{path}: its {damaged[0]} split has values that are not finite: remove them")
    train, validation, test = map(TensorSplit, x.values())
    spec = DataSpec((1, 1, train.x.shape[-1]), levels, modality="vector")
    return Data(name, spec, train, validation, test, fingerprint(*x.values()))


def arrays_of(stored: dict[str, np.ndarray], column: str = "") -> dict[str, np.ndarray]:
    """Return the array of each split that has one: ``train``, or ``train_COLUMN``, and so on."""
    ends = f"_{column}" if column else ""
    held = {split: [stored[n + ends] for n in names if n + ends in stored] for split, names in _NAMES.items()}
    return {split: arrays[0] for split, arrays in held.items() if arrays}


def read_splits(path: str, key: str = "data.path", expected: str = _KEPT, column: str = "") -> dict[str, np.ndarray]:
    """Return the array of each split, or its column, of the file that a recipe's ``key`` names."""
    if not path:
        raise UserError(f"{key} is not set: it names {expected}")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{key}={path} is not a file: it should be {expected}")
    stored = read_npz(file, expected)
    found = arrays_of(stored, column)
    if missing := [split for split in _NAMES if split not in found]:
        held, of = ", ".join(stored), f"of column {column} " if column else ""
        raise UserError(f"{file} has no array {of}of the {missing[0]} split (it has {held}); expected {expected}")
    return found


def _levels(arrays: dict[str, np.ndarray], given: int, path: str) -> int:
    """Return the number of levels. Raises UserError if a value is not a level."""
    largest = given or max(2, 1 + max(int(array.max()) for array in arrays.values()))
    for split, array in arrays.items():
        # written so that NaN fails too
        if not bool(((array >= 0) & (array < largest) & (array == np.floor(array))).all()) or largest > _LARGEST:
            raise UserError(
                f"{path}: its {split} split has values other than 0..{min(largest, _LARGEST) - 1}: whole "
                "numbers from 0 are categories, floating-point numbers are real values without data.levels"
            )
    return largest

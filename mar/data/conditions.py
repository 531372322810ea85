"""Vectors in place of classes: a column of the data set, or a file beside it, that examples are generated under.

N examples · B batch · T vectors of a sequence · E width of a vector
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.readers import read_npz
from mar.core.spec import Conditions
from mar.data.base import SPLITS, Data, Split, fingerprint
from mar.data.npz import arrays_of

EXPECTED = "an .npz file with arrays train, validation and test, (examples, width) or (examples, length, width)"


@dataclass(frozen=True)
class Conditioned(Split):
    """A split whose labels are conditions."""

    split: Split
    condition_N: torch.Tensor  # (N, E) or (N, T, E), NaN where there is none

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.split.batch(index_B)[0], self.condition_N[index_B]

    def training_batch(self, index_B: torch.Tensor, epoch_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.split.training_batch(index_B, epoch_B)[0], self.condition_N[index_B]


def with_condition(data: Data, kind: str, column: str = "", mask: str = "", path: str = "") -> Data:
    """Return the data with a column, or the arrays of a file, in place of classes; ``data`` if they have conditions.

    Args:
        kind: "vector", or "tokens": sequences, padded with absent vectors.
        mask: the column that is true where a vector of a sequence exists.

    Raises:
        UserError: there is no such column or file; rows of another number or kind, or that are not finite.
    """
    if data.spec.conditions is None:
        if bool(column) == bool(path):
            raise UserError(f"condition.kind={kind} needs condition.column or condition.path, one of them")
        data = with_rows(data, *(_of_file(path) if path else _of_columns(data, column, mask)), path or column)
    known = data.spec.conditions
    if known is not None and (found := "tokens" if known.length else "vector") != kind:
        held = f"{known.length} vectors" if known.length else "one vector"
        raise UserError(f"{path or column or data.name} has {held} for each example: set condition.kind={found}")
    return data


def with_rows(data: Data, rows: Mapping[str, Any], masks: Mapping[str, Any], what: str) -> Data:
    """Return the data with these rows of each split in place of classes, and with those of no mask absent."""
    found = {split: packed(rows[split], f"{what}: {split}", masks.get(split)) for split in SPLITS}
    longest = max(own.shape[1] if own.ndim == 3 else 0 for own in found.values())
    for split, own in found.items():
        if own.ndim != found["train"].ndim or own.shape[-1] != found["train"].shape[-1]:
            shapes = ", ".join(f"{name} {tuple(one.shape)}" for name, one in found.items())
            raise UserError(f"{what}: the splits differ in width ({shapes})")
        if len(own) != (n := len(data.split(split))):
            raise UserError(f"{what} has {len(own)} rows for the {n} examples of the {split} split")
        if own.ndim == 3:
            pad = torch.full((len(own), longest - own.shape[1], own.shape[2]), torch.nan)
            found[split] = torch.cat([own, pad], dim=1)
    train_ME = found["train"].flatten(0, -2).double()
    train_ME = train_ME[~train_ME.isnan().any(1)]
    if not len(train_ME):
        raise UserError(f"{what}: the train split has no vectors")
    std_E = train_ME.std(0, correction=0)
    std_E = torch.where(std_E > 1e-6 * train_ME.abs().amax(0), std_E, 1.0)
    spec = Conditions(train_ME.shape[1], tuple(train_ME.mean(0).tolist()), tuple(std_E.tolist()), longest)
    train, validation, test = (Conditioned(data.split(split), found[split]) for split in SPLITS)
    return replace(
        data, train=train, validation=validation, test=test, bare=data,
        spec=replace(data.spec, n_classes=0, class_names=(), conditions=spec),
        fingerprint=digest(data.fingerprint, fingerprint(*found.values())), former="",
    )  # fmt: skip


def packed(rows: Any, what: str, mask: Any = None) -> torch.Tensor:
    """Return rows as float32 (N, E) or (N, T, E); numbers are vectors of one entry, sequences may differ in length.

    Vectors of a sequence whose ``mask`` (N, T) is false, and the padding of shorter ones, are NaN: absent.

    Raises:
        UserError: rows of several widths, a mask of another shape, or other values that are not finite.
    """
    try:
        value = _table(rows)
        if mask is not None:
            if value.ndim != 3 or np.shape(mask) != value.shape[:2]:
                raise UserError(f"{what}: a mask of shape {np.shape(mask)} for conditions of shape {value.shape}")
            value[~np.asarray(mask).astype(bool)] = np.nan
    except (TypeError, ValueError):
        raise UserError(f"{what}: conditions are numbers, vectors or sequences of vectors, of one width") from None
    damaged = ~np.isfinite(value).all(-1)
    if value.ndim == 3:
        damaged = (damaged & ~np.isnan(value).all(-1)).any(1)
    if damaged.any():
        raise UserError(f"{what}: row {int(damaged.argmax())} has values that are not finite: mend or remove it")
    return torch.from_numpy(value)


def _table(rows: Any) -> np.ndarray:
    """Return a new float32 array (N, E) or (N, T, E). Raises ValueError, TypeError: it is none."""
    if isinstance(rows, list) or (isinstance(rows, np.ndarray) and rows.dtype.kind == "O"):
        parts = [np.asarray(row) for row in rows]
        if len({part.shape for part in parts}) > 1:  # sequences of several lengths
            width = max(part.shape[-1] for part in parts if part.ndim == 2)
            rows = np.full((len(parts), max(map(len, parts)), width), np.nan, np.float32)
            for row, part in zip(rows, parts, strict=True):
                row[: len(part)] = part.reshape(len(part), width)
        else:
            rows = np.stack(parts)
    array = np.atleast_1d(np.asarray(rows))
    if array.dtype.kind not in "biuf" or array.ndim > 3 or not array.size:
        raise ValueError
    return np.array(array if array.ndim > 1 else array[:, None], dtype=np.float32)


def _of_file(path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the arrays of the splits, and their masks."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"condition.path={path} is not a file: it should be {EXPECTED}")
    stored = read_npz(file, EXPECTED)
    if missing := [split for split in SPLITS if split not in arrays_of(stored)]:
        raise UserError(
            f"{file} has no array of the {missing[0]} split (it has {', '.join(stored)}): expected {EXPECTED}"
        )
    return arrays_of(stored), arrays_of(stored, "mask")


def _of_columns(data: Data, column: str, mask: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if data.columns is None:
        raise UserError(
            f"data.kind={data.name} has no column {column!r}: condition.path names a file beside it, {EXPECTED}"
        )
    return data.columns(column), data.columns(mask) if mask else {}

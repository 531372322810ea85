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
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.readers import read_npz
from mar.core.spec import Conditions
from mar.data.base import SPLITS, Data, Split, fingerprint
from mar.data.npz import arrays_of, read_splits

EXPECTED = "an .npz file with arrays train, validation and test, (examples, width) or (examples, length, width)"


@dataclass(frozen=True)
class Conditioned(Split):
    """A split whose labels are conditions."""

    split: Split
    condition_N: torch.Tensor  # (N, E) or (N, T, E), NaN where there is none

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._own(self.split.batch(index_B)[0]), self.condition_N[index_B]

    def training_batch(self, index_B: torch.Tensor, epoch_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._own(self.split.training_batch(index_B, epoch_B)[0]), self.condition_N[index_B]

    def _own(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``. Raises UserError: an example stands in for a damaged one, whose condition is not its own."""
        if len(damaged := getattr(self.split, "damaged", ())):
            raise UserError(
                f"damaged examples ({len(damaged)}): the next ones would stand in for them, under conditions that are "
                "not theirs: mend them, or remove them and their rows of the conditions"
            )
        return x


def with_condition(data: Data, kind: str, column: str = "", mask: str = "", path: str = "") -> Data:
    """Return the data with a column, or the arrays of a file, in place of classes; ``data`` if they have conditions.

    Args:
        kind: "vector", or "tokens": sequences.
        mask: the column that is true where a vector of a sequence exists.

    Raises:
        UserError: there is no such column or file; or as ``with_rows``.
    """
    if data.spec.conditions is None:
        if bool(column) == bool(path):
            raise UserError(f"condition.kind={kind} needs condition.column or condition.path, one of them")
        if path:
            rows = read_splits(path, "condition.path", EXPECTED)
            masks = arrays_of(read_npz(Path(path).expanduser(), EXPECTED), "mask")
        elif data.columns is None:
            raise UserError(f"data.kind={data.name} has no columns: condition.path names {EXPECTED}")
        else:
            rows, masks = data.columns(column), data.columns(mask) if mask else {}
        data = with_rows(data, rows, masks, path or column)
    found = "tokens" if data.spec.conditions and data.spec.conditions.length else "vector"
    if found != kind:
        held = "a sequence of vectors" if found == "tokens" else "one vector"
        raise UserError(f"{path or column or data.name} has {held} for each example: set condition.kind={found}")
    return data


def with_rows(data: Data, rows: Mapping[str, Any], masks: Mapping[str, Any], what: str) -> Data:
    """Return the data with these rows of each split in place of classes.

    Raises:
        UserError: another number of rows than of examples, or of another width in another split; or as ``packed``.
    """
    if masks and (lacks := [split for split in SPLITS if split not in masks]):
        raise UserError(f"{what} has no mask of the {lacks[0]} split")
    found = {split: packed(rows[split], f"{what}: {split}", masks.get(split)) for split in SPLITS}
    for split, own in found.items():
        if own.ndim != found["train"].ndim or own.shape[-1] != found["train"].shape[-1]:
            shapes = ", ".join(f"{name} {tuple(one.shape)}" for name, one in found.items())
            raise UserError(f"{what}: the splits differ in width ({shapes})")
        if len(own) != (n := len(data.split(split))):
            raise UserError(f"{what} has {len(own)} rows for the {n} examples of the {split} split")
    longest = max(own.shape[1] for own in found.values()) if found["train"].ndim == 3 else 0
    found = {split: padded(own, longest) for split, own in found.items()}
    train_ME = found["train"].flatten(0, -2).double()
    train_ME = train_ME[~train_ME.isnan().any(1)]
    if not len(train_ME):
        raise UserError(f"{what}: the train split has no vectors")
    std_E = train_ME.std(0, correction=0)
    std_E = torch.where(std_E > 1e-6 * train_ME.abs().amax(0), std_E, 1.0)
    spec = Conditions(train_ME.shape[1], tuple(train_ME.mean(0).tolist()), tuple(std_E.tolist()), longest)
    splits = {split: Conditioned(data.split(split), own) for split, own in found.items()}
    spec = replace(data.spec, n_classes=0, class_names=(), conditions=spec)
    identity = digest(data.fingerprint, fingerprint(*found.values()))
    return replace(data, **splits, spec=spec, fingerprint=identity, former="", bare=data)


def padded(value: torch.Tensor, length: int) -> torch.Tensor:
    """Return sequences (N, T, E) with absent vectors up to ``length``; vectors (N, E) as they are."""
    return value if value.ndim < 3 else F.pad(value, (0, 0, 0, length - value.shape[1]), value=torch.nan)


def packed(rows: Any, what: str, mask: Any = None) -> torch.Tensor:
    """Return rows as float32 (N, E) or (N, T, E); numbers are vectors of one entry, sequences may differ in length.

    Vectors of a sequence whose ``mask`` (N, T) is false, and the padding of shorter ones, are NaN: absent.

    Raises:
        UserError: rows of several widths, a mask of another shape, or other values that are not finite.
    """
    try:
        value = _table(rows)
        if mask is not None:
            mask = plain(mask)
            if value.ndim != 3 or np.shape(mask) != value.shape[:2]:
                raise UserError(f"{what}: a mask of shape {np.shape(mask)} for conditions of shape {value.shape}")
            value[~np.asarray(mask).astype(bool)] = np.nan
    except (TypeError, ValueError):
        raise UserError(f"{what}: conditions are numbers, vectors or sequences of vectors, of one width") from None
    damaged = ~np.isfinite(value).all(-1)
    if value.ndim == 3:
        damaged = np.any(damaged & ~np.isnan(value).all(-1), axis=1)
    if damaged.any():
        raise UserError(f"{what}: row {int(damaged.argmax())} has values that are not finite: mend or remove it")
    return torch.from_numpy(value)


def plain(rows: Any) -> Any:
    """Return a tensor as one that numpy reads, on the CPU, floats as float32; anything else as it is."""
    if not isinstance(rows, torch.Tensor):
        return rows
    return (rows.float() if rows.is_floating_point() else rows).detach().cpu()


def _table(rows: Any) -> np.ndarray:
    """Return a new float32 array (N, E) or (N, T, E). Raises ValueError, TypeError: it is none."""
    if isinstance(rows, list) or (isinstance(rows, np.ndarray) and rows.dtype.kind == "O"):
        parts = [np.asarray(plain(row)) for row in rows]
        rows = parts
        if len({part.shape for part in parts}) > 1:  # sequences of several lengths
            width = max(part.shape[-1] for part in parts if part.ndim == 2)
            rows = np.full((len(parts), max(map(len, parts)), width), np.nan, np.float32)
            for row, part in zip(rows, parts, strict=True):
                row[: len(part)] = part.reshape(len(part), width)
    array = np.atleast_1d(np.asarray(plain(rows)))
    if array.dtype.kind not in "biuf" or array.ndim > 3 or not array.size:
        raise ValueError
    return np.array(array if array.ndim > 1 else array[:, None], dtype=np.float32)

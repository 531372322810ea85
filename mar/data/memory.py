"""Data sets in memory: tensors, a ``torch.utils.data.Dataset`` or a Hugging Face data set, for ``mar.fit``.

N examples · C channels · H, W rows, columns
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, Data, DataOptions, DataSource, TensorSplit, fingerprint
from mar.data.conditions import with_rows
from mar.data.pictures import as_shown

_LABELS = (
    "labels are whole numbers, one class for each image; conditions are floats (N, E) or (N, T, E), in a pair of "
    "tensors: (images, vectors)"
)
_IMAGE_KEYS = ("image", "img", "x", "pixel_values", "images")
_LABEL_KEYS = ("label", "labels", "y", "class", "fine_label", "target")
_HELD_OUT = 0.1  # of the examples, for validation and for test each, where these are not given


class Memory(DataSource):
    """The kind that the recipe of such a run names: its examples are not on disk."""

    Options = DataOptions
    name = "memory"

    @classmethod
    def load(cls, options: DataOptions) -> Data:
        raise UserError(
            "this run was trained on a data set in memory: give images, or set run.data = mar.data.memory.in_memory(…)"
        )


def in_memory(
    train: Any, validation: Any = None, test: Any = None, levels: int | None = None, image: str = "", label: str = "",
    name: str = "memory",
) -> Data:  # fmt: skip
    """Three splits of examples in memory.

    Args:
        train: images (N, C, H, W), (N, H, W, C) or (N, H, W); a pair of images and labels, or real-valued conditions
            (N, E) or (N, T, E); or a sequence or data set whose items are images, (image, label) pairs or rows with an
            image column; or a mapping of splits. A Hugging Face data set without images may have texts or vectors
            (``mar.data.hub``). Images are tensors, arrays or pictures, integer levels or values in [0, 1]; pictures are
            read as those of a folder are.
        validation, test: the same; None: a tenth of the training examples each, drawn without replacement.
        levels: of the images; None: the least power of two above the data, 256 for photographs.
        image, label: columns of rows; "": the first that is called image, img, x, … and label, y, ….

    Raises:
        UserError: images of several shapes, of real values or without a known layout; no image column; no examples.
    """
    if isinstance(train, Mapping):
        if not {"train"} <= {*train} <= {*SPLITS} or not (validation is None is test):
            raise UserError(f"a mapping has the splits train, validation and test, not {', '.join(map(str, train))}")
        train, validation, test = (train.get(split) for split in SPLITS)
    if hasattr(train, "cast_column") and not _has_images(train, image):
        from mar.data import hub

        parts = {split: part for split, part in zip(SPLITS, (train, validation, test), strict=True) if part is not None}
        chosen = hub.HubOptions(
            name, column=image, label=label, levels=levels or 0, validation=_HELD_OUT, test=_HELD_OUT
        )
        return replace(hub.from_splits(parts, chosen), name=name)
    every = _examples(train, image, label)
    others = [None if part is None else _examples(part, image, label) for part in (validation, test)]
    order = stream(0, "data/memory/shuffle", len(every)).uniform(1)[:, 0].argsort(stable=True)
    held = max(1, int(_HELD_OUT * len(every)))
    for k, part in enumerate(others):
        if part is None:
            if len(order) <= held:
                raise UserError(f"{len(every)} examples are too few to hold some out: give validation and test")
            others[k], order = TensorSplit(*every.batch(order[:held])), order[held:]
    splits = [part for part in (TensorSplit(*every.batch(order.sort().values)), *others) if part is not None]
    highest = max(int(split.x.max()) for split in splits)
    levels = levels or max(2, 1 << highest.bit_length())
    if highest >= levels:
        raise UserError(f"the images have level {highest}: levels={levels} is too few")
    shape = _one_shape([split.x[0] for split in splits])
    labels = [split.label for split in splits if split.label is not None]
    if len(labels) not in (0, len(splits)):
        raise UserError("some splits have labels and some have none")
    rows = dict[str, torch.Tensor]()
    if labels and labels[0].is_floating_point():
        rows, labels = {str(split): label for split, label in zip(SPLITS, labels, strict=True)}, []
        splits = [TensorSplit(split.x) for split in splits]
    names = _class_names(train, label)
    n_classes = max(len(names), *(int(label_N.max()) + 1 for label_N in labels)) if labels else 0
    dtype = torch.uint8 if levels <= 256 else torch.int16
    first, second, third = (TensorSplit(split.x.to(dtype), split.label) for split in splits)
    spec = DataSpec(shape, levels, n_classes, names if len(names) == n_classes else ())
    content = fingerprint(*(tensor for split in (first, second, third) for tensor in (split.x, split.label)))
    data = Data(name, spec, first, second, third, content)
    return with_rows(data, rows, {}, "conditions") if rows else data


def _has_images(rows: Any, column: str) -> bool:
    """Return True if a Hugging Face data set has a column of images, or arrays of pixels."""
    names = (column,) if column else _IMAGE_KEYS
    return any(
        "Image" in type(rows.features.get(name)).__name__ or "Array" in type(rows.features.get(name)).__name__
        for name in names
    )


def _one_shape(images: list[torch.Tensor]) -> tuple[int, ...]:
    """Return the shape of all images. Raises UserError if there are several."""
    shapes = sorted({tuple(x.shape) for x in images})
    if len(shapes) > 1:
        raise UserError(f"images of one shape are wanted, not {shapes[0]} and {shapes[1]}: crop or resize them")
    return shapes[0]


def _examples(source: Any, image: str, label: str) -> TensorSplit:
    """Return x (N, C, H, W) in integer levels with the classes."""
    if isinstance(source, (torch.Tensor, np.ndarray)):
        return TensorSplit(_levels(torch.as_tensor(source)))
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], (torch.Tensor, np.ndarray)):
        x, y = source
        y = None if y is None else torch.as_tensor(y)
        rows = y is not None and y.ndim > 1 and y.is_floating_point()  # conditions
        if y is not None and not rows and (y.ndim > 1 or not bool((y == y.long()).all())):
            raise UserError(_LABELS)
        return TensorSplit(_levels(torch.as_tensor(x)), y if y is None or rows else y.long())
    images, labels = [], []
    for k in range(len(source)):
        item = source[k]
        if isinstance(item, Mapping):
            image = image or next((key for key in _IMAGE_KEYS if key in item), "")
            label = label or next((key for key in _LABEL_KEYS if key in item), "")
            if image not in item:
                raise UserError(f"no column of images among {', '.join(item)}: name it, image=…")
            item = (item[image], item[label]) if label else (item[image],)
        elif not isinstance(item, (tuple, list)):
            item = (item,)
        images.append(_pixels(item[0]))
        labels.append(_class(item[1]) if len(item) > 1 and item[1] is not None else None)
    if not images:
        raise UserError("the data set has no examples")
    _one_shape(images)
    return TensorSplit(_levels(torch.stack(images)), None if None in labels else torch.tensor(labels))


def _class(label: Any) -> int:
    """Return the number of a class. Raises UserError: it is none."""
    try:
        if (found := int(label)) == label:
            return found
    except (TypeError, ValueError, RuntimeError):
        pass
    raise UserError(_LABELS)


def _pixels(image: Any) -> torch.Tensor:
    """Return a tensor, an array or a picture as a tensor."""
    if isinstance(image, torch.Tensor):
        return image
    if isinstance(image, Image.Image) and image.mode not in ("1", "I", "F", "I;16"):
        grey = image.mode in ("L", "LA", "La")
        image = as_shown(image, "a picture of the data set").convert("L" if grey else "RGB")
    array = np.array(image)
    return torch.from_numpy(array.astype(np.uint8) if array.dtype == bool else array)


def _levels(x: torch.Tensor) -> torch.Tensor:
    """Return (N, C, H, W) integers."""
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        raise UserError(f"images are (N, C, H, W), (N, H, W, C) or (N, H, W), not of shape {tuple(x.shape)}")
    if x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    if not x.is_floating_point():
        if len(x) and int(x.min()) < 0:
            raise UserError(f"images are levels from 0 on, and these go down to {int(x.min())}")
        return x.contiguous()
    whole = (x * 255.0).round()
    if not bool(((x * 255.0 - whole).abs() < 0.01).all()) or float(x.min()) < 0.0 or float(x.max()) > 1.0:
        raise UserError(
            "images of real values are levels v/255 in [0, 1], as ToTensor makes them; these are not: quantise them to "
            "integers and leave out normalising"
        )
    return whole.to(torch.int16).contiguous()


def _class_names(source: Any, label: str) -> tuple[str, ...]:
    """Return the names of the classes that torchvision or Hugging Face data sets know."""
    features = getattr(source, "features", None)
    if isinstance(features, Mapping):
        column = label or next((key for key in _LABEL_KEYS if key in features), "")
        return tuple(getattr(features.get(column), "names", None) or ())
    return tuple(map(str, getattr(source, "classes", None) or ()))

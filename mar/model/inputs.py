"""Examples, labels and tokens from Python code, checked and as the tensors that a model reads.

Here, not in ``mar/run.py``: samplers check classes by the same rule. What can mean one thing only is converted;
anything else is refused in one line that says what is wanted.

N examples · C channels · H, W rows, columns · L tokens
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.readers import read_npz, reading
from mar.core.spec import Conditions, DataSpec
from mar.core.tokens import Categories
from mar.data.conditions import packed, padded, plain
from mar.model.model import Model

_CONDITIONS = "conditions, one row for each example (.npy; .npz: condition, and mask of sequences)"


def examples_of(spec: DataSpec, examples: Any, what: str = "images") -> torch.Tensor:
    """(N, C, H, W) examples in the data set's levels, or its real values.

    Arrays, lists and pictures become tensors. One example, (N, H, W, C), and (N, H, W) and (N, H W) of one channel
    become (N, C, H, W); videos have frames after N. Floats become levels where they are whole, or v / (levels - 1) in
    [0, 1], as ToTensor makes.

    Raises:
        UserError: another shape, levels that the data set does not have, floats that are neither or both.
    """
    x = _tensor(examples, what)
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise UserError(f"{what} hold values that are not finite")
    if spec.latents is not None:  # made by an autoencoder, in a shape of its own
        return x
    x = _laid_out(x, spec.shape, what)
    if not spec.levels:
        return x.float()
    if not x.numel():
        return x
    top = spec.levels - 1
    if x.is_floating_point():
        low, high = float(x.min()), float(x.max())
        whole, scaled = bool((x == x.round()).all()), x * top
        in_unit = 0.0 <= low <= high <= 1.0 and bool(((scaled - scaled.round()).abs() < 0.01).all())
        wanted = f"give integer levels 0..{top}, or floats v/{top} in [0, 1]"
        if whole and in_unit and top > 1 and high > 0.0:
            raise UserError(f"{what} of floats 0.0 and 1.0 alone may mean level 1 or level {top}: {wanted}")
        if not whole and not in_unit:
            raise UserError(f"{what} of floats between {low:.3g} and {high:.3g} are no levels: {wanted}")
        x = (x if whole else scaled).round().to(torch.int32)
    low, high = int(x.min()), int(x.max())
    if low < 0 or high > top:
        raise UserError(f"{what} have level {low if low < 0 else high}, and this run's data have levels 0..{top}")
    return x.to(torch.uint8) if spec.levels <= 256 else x.to(torch.int32)


def given_labels(model: Model, labels: Any, n: int, lowest: int = 0) -> torch.Tensor:
    """Return classes or conditions, one or one for each of ``n`` examples. Raises UserError: the model has no such."""
    if model.given is None:
        return classes_of(model.n_classes, labels, n, lowest)
    return conditions_of(model.given.spec, labels, n)


def read_conditions(file: Path, model: Model) -> torch.Tensor:
    """Return the conditions in a file. Raises UserError: the model takes no such, or there is no such file."""
    if model.given is None:
        raise UserError("--condition is for runs of condition.kind=vector or tokens: this run was trained without")
    with reading(file, _CONDITIONS):
        stored = read_npz(file, "") if file.suffix == ".npz" else {"condition": np.load(file, allow_pickle=False)}
        rows = stored["condition"]
    return conditions_of(model.given.spec, (rows, stored["mask"]) if "mask" in stored else rows)


def conditions_of(spec: Conditions, rows: Any, n: int | None = None) -> torch.Tensor:
    """(N, E) or (N, T, E) float32 from one vector or sequence, or one for each of ``n`` examples; NaN is absent.

    Args:
        rows: an array, or a pair of sequences and their mask (N, T), true where a vector exists.

    Raises:
        UserError: another width, a longer sequence, values that are not finite, or another number of rows.
    """
    if isinstance(rows, tuple) and len(rows) != 2:
        raise UserError("condition: a tuple is a pair of sequences and their mask: give vectors as an array or a list")
    rows, mask = rows if isinstance(rows, tuple) else (rows, None)
    rows, axes = [plain(row) for row in rows] if isinstance(rows, list) else plain(rows), 3 if spec.length else 2
    with suppress(ValueError):  # of sequences of several lengths
        if len(np.shape(rows)) == axes - 1 and np.shape(rows)[-1] == spec.width:  # one
            rows, mask = np.asarray(rows)[None], None if mask is None else np.asarray(plain(mask))[None]
    found = packed(rows, "condition", mask)
    given = f"sequences of up to {spec.length} vectors" if spec.length else "vectors"
    if found.ndim != axes or found.shape[-1] != spec.width or (axes == 3 and found.shape[1] > spec.length):
        raise UserError(f"condition of shape {tuple(found.shape)}: this run takes {given} of width {spec.width}")
    n = len(found) if n is None else n
    if len(found) not in (1, n):
        raise UserError(f"{len(found)} conditions for {n} examples: give one, or one for each")
    return padded(found, spec.length).expand(n, *[-1] * (axes - 1))


def are_whole(labels: Any) -> bool:
    """True of whole numbers, as classes are."""
    if isinstance(labels, torch.Tensor):
        return not labels.is_floating_point()
    with suppress(TypeError, ValueError, RuntimeError):
        return labels is not None and np.asarray(labels).dtype.kind in "biu"
    return False


def classes_of(n_classes: int, labels: Any, n: int, lowest: int = 0) -> torch.Tensor:
    """(N,) int64 classes from one, or one for each of ``n`` images; ``lowest`` -1 allows "no class".

    Raises:
        UserError: no whole numbers, another number of them, or a class that the model does not have.
    """
    label_N = _tensor(labels, "labels")
    if label_N.is_floating_point() or label_N.dtype == torch.bool or label_N.ndim > 1:
        raise UserError(
            f"labels are whole numbers, one class or (N,) classes, not {label_N.dtype} of shape {tuple(label_N.shape)}"
        )
    label_N = label_N.reshape(-1).long()
    outside = label_N[(label_N < lowest) | (label_N >= n_classes)]
    if len(outside):
        raise UserError(f"class {int(outside[0])} is out of range: this run has classes 0..{n_classes - 1}")
    if len(label_N) not in (1, n):
        raise UserError(f"{len(label_N)} classes for {n} images: give one, or one for each")
    return label_N.expand(n)


def tokens_of(model: Model, tokens: Any) -> torch.Tensor:
    """(N, L) int64 categories or (N, L, E) float vectors, on the model's device. Raises UserError: anything else."""
    token, kind, length = _tensor(tokens, "tokens"), model.tokenizer.token, int(np.prod(model.tokenizer.shape))
    if isinstance(kind, Categories):
        fits = token.ndim == 2 and token.shape[1] == length and not token.is_floating_point()
        if not fits or (token.numel() and not 0 <= int(token.min()) <= int(token.max()) < kind.vocabulary):
            raise UserError(f"tokens are (N, {length}) whole numbers 0..{kind.vocabulary - 1}")
        token = token.long()
    elif token.ndim != 3 or tuple(token.shape[1:]) != (length, kind.width) or not bool(token.isfinite().all()):
        raise UserError(f"tokens are (N, {length}, {kind.width}) finite numbers")
    return token.to(model.null.device)


def _tensor(values: Any, what: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values
    try:
        rows = isinstance(values, (list, tuple)) and len(values) > 0
        array = np.stack([np.asarray(row) for row in values]) if rows else np.asarray(values)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    except (TypeError, ValueError):
        kind = type(values).__name__
        raise UserError(f"{what} are a tensor, an array or a list of equal shapes, not {kind}") from None


def _laid_out(x: torch.Tensor, shape: tuple[int, ...], what: str) -> torch.Tensor:
    *frames, channels, height, width = shape
    whole, last = tuple(x.shape), (*frames, height, width, channels)
    plain = [(*frames, height, width), (np.prod(shape),)] if channels == 1 else []
    if whole[1:] == shape or whole[1:] in plain:
        return x.reshape(len(x), *shape)
    if whole == shape or whole in plain:
        return x.reshape(1, *shape)
    if whole[1:] == last or whole == last:
        return x.reshape(-1, *last).movedim(-1, -3).contiguous()
    raise UserError(f"{what} of shape {whole}: this run takes (N, {', '.join(map(str, shape))})")

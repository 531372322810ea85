"""Latents that the codes of MAR and RAR have encoded, read as they wrote them (``mar cache`` writes its own form).

mar-latents: a folder of classes with an ``.npz`` file an image: ``moments`` and ``moments_flip``, (2 C, h, w) means and
log-variances of the image and its mirror image (``main_cache.py`` of Li et al. 2024).
rar-tokens: lines of JSON, ``{"class_id": 7, "tokens": [3, 14, …]}``, one of each crop (Yu et al. 2024).

N examples · B batch · C latent channels · h, w rows, columns of latents
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.noise import stream
from mar.core.options import at_least, between
from mar.core.readers import read_npz, reading
from mar.core.spec import DataSpec, Latents
from mar.data.base import (
    SPLITS,
    Data,
    DataOptions,
    DataSource,
    Split,
    TensorSplit,
    check_shares,
    evenly_spaced,
    fingerprint,
)
from mar.data.files import contents, folder_at, walk
from mar.data.folder import FolderOptions, find_splits

_MEASURED = 1000  # training examples whose mean and deviation are taken
_LOG_VARIANCE = (-30.0, 20.0)  # limits of MAR's and diffusers' autoencoders


@dataclass(frozen=True)
class MarLatentsOptions(DataOptions):
    path: str = ""  # the folder of classes, or with train/ and val/
    size: int = 256  # side of the images that were encoded, in pixels
    flips: bool = True  # each training image twice: example N + i is image i mirrored
    images: str = ""  # the folder of the images, for FID
    validation: float = 0.005  # share of the images, without a folder of validation images
    test: float = 0.005  # the same for the test; 0: the validation images are the test
    workers: int = 4  # threads that read
    bounds: ClassVar = {"size": between(1, 2**14), "workers": between(1, 1024)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(validation=self.validation, **({"test": self.test} if self.test else {}))


@dataclass(frozen=True)
class MomentSplit(Split):
    """Files read on access. With ``flips`` the second half of the numbers are the mirrored first half."""

    root: Path
    files: tuple[str, ...]
    label_N: torch.Tensor | None
    flips: bool
    workers: int

    def __len__(self) -> int:
        return len(self.files) * (2 if self.flips else 1)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return means and standard deviations (B, 2 C, h, w) float32, and label_B. UserError: a file is damaged."""
        with ThreadPoolExecutor(self.workers) as pool:
            found = list(pool.map(self._example, index_B.tolist()))
        if len({x.shape for x in found}) > 1:
            raise UserError(f"{self.root} holds latents of several shapes")
        mean, log_variance = torch.from_numpy(np.stack(found)).float().chunk(2, dim=1)
        x = torch.cat([mean, (0.5 * log_variance.clamp(*_LOG_VARIANCE)).exp()], dim=1)
        return x, None if self.label_N is None else self.label_N[index_B % len(self.files)]

    def _example(self, index: int) -> np.ndarray:
        file, name = (
            self.root / self.files[index % len(self.files)],
            "moments_flip" if index >= len(self.files) else "moments",
        )
        what = "MAR's latents, moments and moments_flip of shape (2 C, h, w)"
        with reading(file, what):
            x = read_npz(file, what, (name,))[name]
            if x.ndim != 3 or x.shape[0] % 2 or x.dtype.kind != "f" or not np.isfinite(x).all():
                raise ValueError(f"{x.shape} values of {x.dtype}, or some that are not finite")
            return x


class MarLatents(DataSource):
    """Latents of MAR's code. The recipe names their autoencoder (``tokenizer.kind=kl tokenizer.path=…``)."""

    Options = MarLatentsOptions
    name = "mar-latents"

    @classmethod
    def load(cls, options: MarLatentsOptions) -> Data:
        """List the files, and measure the latents of some training images."""
        listing = walk(folder_at(options.path, "classes of .npz files, written by MAR's main_cache.py"), (".npz",))
        asked = FolderOptions(options.path, options.size, validation=options.validation, test=options.test)
        files, classes, notes = find_splits(listing, asked)
        number, splits = {name: k for k, name in enumerate(classes)}, dict[str, Any]()
        for split in SPLITS:
            names = tuple(file for file, _ in files[split])
            label_N = torch.tensor([number[inside.split("/")[0]] for _, inside in files[split]]) if classes else None
            splits[split] = MomentSplit(
                listing.root, names, label_N, options.flips and split == "train", options.workers
            )
        mean_C, std_C = _scale(splits["train"])
        spec = DataSpec((3, options.size, options.size), 256, len(classes), classes)
        spec = replace(spec, latents=Latents("kl", "", "", mean_C, std_C))
        unique = sorted({name for pairs in files.values() for name, _ in pairs})
        hashes = dict(zip(unique, contents(listing.root, unique), strict=True))
        listed = (f"{split} {name} {hashes[name]};" for split in SPLITS for name, _ in files[split])
        images = {"kind": "folder", "path": options.images, "size": options.size, "test": options.test}
        return Data(
            cls.name, spec, **splits, fingerprint=digest(f"{options.size} {options.flips};", *listed), notes=notes,
            source=(images, ""),
        )  # fmt: skip


def _scale(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of each channel, the posterior's variance included."""
    mean, std = split.batch(evenly_spaced(len(split), _MEASURED))[0].double().chunk(2, dim=1)
    mean_C = mean.mean((0, 2, 3))
    std_C = ((mean**2 + std**2).mean((0, 2, 3)) - mean_C**2).sqrt()
    return tuple(mean_C.tolist()), tuple(std_C.tolist())


@dataclass(frozen=True)
class RarTokensOptions(DataOptions):
    path: str = ""  # the file
    levels: int = 1024  # entries of the codebook
    validation: int = 1000  # lines, drawn
    test: int = 1000  # lines, drawn
    bounds: ClassVar = {"levels": between(2, 2**24), "validation": at_least(1), "test": at_least(1)}


class RarTokens(DataSource):
    """Indices on a square grid, without the model that decodes them: ``tokenizer.kind=pixels``."""

    Options = RarTokensOptions
    name = "rar-tokens"

    @classmethod
    def load(cls, options: RarTokensOptions) -> Data:
        token_NL, label_N = _lines(options)
        side, n = math.isqrt(token_NL.shape[1]), len(token_NL)
        if side * side != token_NL.shape[1]:
            raise UserError(f"{options.path}: {token_NL.shape[1]} tokens an image are no square grid")
        held = options.validation + options.test
        if n <= held:
            raise UserError(f"{options.path} has {n} lines: lower data.validation and data.test, {held} together")
        order_N = stream(0, "data/rar-tokens/cut", torch.tensor([n])).uniform(n)[0].argsort(stable=True)
        index = {"test": order_N[: options.test], "validation": order_N[options.test : held], "train": order_N[held:]}
        x = token_NL.reshape(n, 1, side, side)
        parts = [t[index[split].sort().values] for split in SPLITS for t in (x, label_N)]
        train, validation, test = map(TensorSplit, parts[::2], parts[1::2])
        classes = tuple(map(str, range(int(label_N.max()) + 1)))
        spec = DataSpec((1, side, side), options.levels, len(classes), classes, modality="latent")
        note = {"splits": "lines are drawn for validation and test: other crops of their images may be trained on"}
        return Data(cls.name, spec, train, validation, test, fingerprint(*parts, torch.tensor(options.levels)), note)


def _lines(options: RarTokensOptions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token_NL (int16, or int32 above 32,768 entries) and label_N. UserError: a line is wrong."""
    what = 'lines of JSON, {"class_id": 7, "tokens": [3, 14, …]}'
    if not options.path:
        raise UserError(f"data.path is not set: it names a file of {what}")
    file = Path(options.path).expanduser()
    if not file.is_file():
        raise UserError(f"data.path={options.path} is not a file: it should hold {what}")
    kind = np.int16 if options.levels <= 2**15 else np.int32
    tokens, labels = list[np.ndarray](), list[int]()
    with reading(file, what), file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                found = json.loads(line)
                row, label = np.array(found["tokens"]), int(found["class_id"])
                if row.dtype.kind != "i" or row.ndim != 1 or row.min() < 0 or row.max() >= options.levels or label < 0:
                    raise ValueError(f"tokens 0 to {options.levels - 1} are wanted (data.levels)")
                if tokens and len(row) != len(tokens[0]):
                    raise ValueError(f"{len(row)} tokens, the first line {len(tokens[0])}")
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file}: line {number} is wrong ({error or 'empty'}); expected {what}") from None
            tokens.append(row.astype(kind))
            labels.append(label)
    if not tokens:
        raise UserError(f"{file} is empty; expected {what}")
    return torch.from_numpy(np.stack(tokens)), torch.tensor(labels)

"""Files of a cache of latents: shards of fixed size with a checksum of each example, and the manifest.

A shard is ``train/00000.safetensors`` with ``latent`` (n, …), ``label`` (n,) where there are labels, and ``crc`` (n,),
the CRC-32 of each example's bytes; beside it ``train/00000.json`` says what was written. ``manifest.json`` is written
last: a folder without one is not finished.

n examples of a shard · C latent channels
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file

from mar.core.errors import UserError
from mar.core.files import CACHE, digest
from mar.core.readers import read_as, read_json
from mar.core.spec import DataSpec
from mar.data.base import SPLITS

_LARGEST_HEADER = 2**20  # bytes


@dataclass(frozen=True)
class Settings:
    """The settings of a cache; caches with equal settings hold the same latents."""

    name: str  # of the data set
    data: dict[str, Any]  # the recipe's section
    fingerprint: str
    spec: DataSpec  # of the images
    kind: Literal["kl", "vq"]
    sha256: str  # of the autoencoder
    flips: bool
    precision: Literal["float32", "float16"]
    shard: int  # examples of each but a split's last


@dataclass(frozen=True)
class ShardRecord:
    """The record of a written shard."""

    count: int
    bytes: int
    sha256: str
    mean: tuple[float, ...] = ()  # of each channel of KL latents
    square: tuple[float, ...] = ()  # mean square, the posterior's variance included


@dataclass(frozen=True)
class Manifest:
    settings: Settings
    mean: tuple[float, ...]  # over the training split
    std: tuple[float, ...]
    shards: dict[str, tuple[ShardRecord, ...]] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read the manifest. Raises UserError: the folder holds no finished cache."""
        file = folder / "manifest.json"
        if not file.is_file():
            what = "an unfinished cache: the mar cache command that began it goes on"
            none = "no cache of latents: mar cache writes one"
            raise UserError(f"data.path={folder} is {what if (folder / 'settings.json').is_file() else none}")
        try:
            return read_as(Manifest, file, "the manifest of a cache")
        except UserError as error:
            raise UserError(f"{error}: run mar cache again") from None

    def count(self, split: str) -> int:
        return sum(shard.count for shard in self.shards[split])

    @property
    def fingerprint(self) -> str:
        """The sha256 of the latents, over those of the shards."""
        every = [[shard.sha256 for shard in self.shards[split]] for split in SPLITS]
        return digest(json.dumps(every))


def settings_in(folder: Path) -> dict[str, Any]:
    """Return the settings of the cache in ``folder``, from its manifest if ``settings.json`` is damaged, or {}.

    Settings that an earlier version did not write have their defaults.
    """
    with suppress(UserError):
        return asdict(read_as(Settings, folder / CACHE, "the settings of a cache"))
    with suppress(UserError):
        return read_json(folder / CACHE, "the settings of a cache")
    with suppress(UserError):
        return asdict(Manifest.read(folder).settings)
    return {}


def shard_file(folder: Path, split: str, number: int) -> Path:
    return folder / split / f"{number:05d}.safetensors"


def write_shard(file: Path, latent: np.ndarray, label: np.ndarray | None) -> None:
    """Write a shard, with the checksum of each example."""
    tensors = {"latent": latent} if label is None else {"latent": latent, "label": label}
    crc = [_crc(row, None if label is None else label[i]) for i, row in enumerate(latent)]
    save_file({**tensors, "crc": np.array(crc, np.int64)}, file)


class Shard:
    """A shard mapped into memory, for random access."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as stream:
            length = min(int.from_bytes(stream.read(8), "little"), _LARGEST_HEADER)
            header = json.loads(stream.read(length))
        kinds = {"F32": np.float32, "F16": np.float16, "I16": np.int16, "I32": np.int32, "I64": np.int64}
        self.arrays: dict[str, np.ndarray] = {
            name: np.memmap(file, kinds[at["dtype"]], "r", 8 + length + at["data_offsets"][0], tuple(at["shape"]))
            for name, at in header.items()
            if name != "__metadata__"
        }

    def example(self, row: int) -> tuple[np.ndarray, int] | None:
        """Return latent and label (or -1), or None if the example does not match its checksum."""
        latent = np.array(self.arrays["latent"][row])
        label = self.arrays["label"][row] if "label" in self.arrays else None
        if _crc(latent, label) != int(self.arrays["crc"][row]):
            return None
        return latent, -1 if label is None else int(label)


def _crc(latent: np.ndarray, label: np.int64 | None) -> int:
    crc = zlib.crc32(np.ascontiguousarray(latent).data)
    return crc if label is None else zlib.crc32(int(label).to_bytes(8, "little", signed=True), crc)

"""Latents that ``mar cache`` encoded, read from shards that are mapped into memory.

B batch · C latent channels · h, w rows, columns of latents
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.files import near
from mar.core.log import logger
from mar.core.options import at_least
from mar.core.spec import Latents
from mar.data.base import SPLITS, Data, DataOptions, DataSource, Split
from mar.data.files import folder_at
from mar.data.shards import Manifest, Shard, shard_file


@dataclass(frozen=True)
class CacheOptions(DataOptions):
    path: str = ""  # the folder that mar cache wrote
    damaged_limit: int = 10  # damaged training examples that the next ones replace; more are refused
    images: str = ""  # the folder of the images now, for FID; "": as encoded
    bounds: ClassVar = {"damaged_limit": at_least(0)}


class CachedSplit(Split):
    """Random access to the examples of a split.

    The next intact example replaces a damaged one, which is reported; all others keep their numbers. More than
    ``limit`` damaged examples are refused.
    """

    def __init__(self, folder: Path, split: str, manifest: Manifest, limit: int) -> None:
        self.folder, self.split, self.size = folder, split, manifest.settings.shard
        self.count = manifest.count(split)
        self.limit, self.damaged = min(limit, max(0, self.count - 1)), set[int]()
        self.shards: dict[int, Shard | None] = {}
        for number, record in enumerate(manifest.shards[split]):
            file = shard_file(folder, split, number)
            if not file.is_file() or file.stat().st_size != record.bytes:
                self._lose_shard(number, record.count, "is truncated" if file.is_file() else "is missing")

    def __len__(self) -> int:
        return self.count

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """KL: (B, 2 C, h, w) float32; VQ: (B, 1, h, w) int16 or int32; and label_B.

        Raises:
            UserError: more damaged examples than ``data.damaged_limit``, with the shard of the last.
        """
        found = [self._example(index) for index in index_B.tolist()]
        latent = torch.from_numpy(np.stack([latent for latent, _ in found]))
        latent = latent.float().flatten(1, 2) if latent.is_floating_point() else latent[:, None]
        label_B = torch.tensor([label for _, label in found])
        return latent, None if label_B[0] < 0 else label_B

    def _example(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < self.count:
            raise IndexError(f"example {index} of {self.count}")
        while True:
            if index not in self.damaged:
                number, row = divmod(index, self.size)
                file = shard_file(self.folder, self.split, number)
                if number not in self.shards:
                    self._open(number, file)
                if (shard := self.shards[number]) is None:
                    continue
                if (found := shard.example(row)) is not None:
                    return found
                self._lose([index], f"{file}: example {row} does not match its checksum")
            index = (index + 1) % self.count

    def _open(self, number: int, file: Path) -> None:
        try:
            self.shards[number] = Shard(file)
        except (ValueError, KeyError, TypeError, AttributeError):
            self._lose_shard(number, min(self.size, self.count - number * self.size), "has a damaged header")

    def _lose_shard(self, number: int, count: int, what: str) -> None:
        self.shards[number], first = None, number * self.size
        file = shard_file(self.folder, self.split, number)
        self._lose(range(first, first + count), f"{file} {what}, {count} examples")

    def _lose(self, index: range | list[int], what: str) -> None:
        self.damaged.update(index)
        total = f"{len(self.damaged)} of {self.count} damaged in {self.split}"
        if len(self.damaged) > self.limit:
            raise UserError(f"{what} ({total}, of {self.limit} allowed): the mar cache command that wrote it mends it")
        logger.warning(f"{what}: the next whole ones are used ({total})")


class Cache(DataSource):
    """A folder of latents; its ``spec`` describes the images."""

    Options = CacheOptions
    name = "cache"

    @classmethod
    def load(cls, options: CacheOptions) -> Data:
        """Read the manifest; examples are read on access."""
        folder = folder_at(options.path, "latents, written by mar cache")
        manifest = Manifest.read(folder)
        made = manifest.settings
        limits = {"train": options.damaged_limit}  # held-out splits must be intact
        train, validation, test = (CachedSplit(folder, name, manifest, limits.get(name, 0)) for name in SPLITS)
        latents = Latents(made.kind, str((folder / "tokenizer").resolve()), made.sha256, manifest.mean, manifest.std)
        images = options.images or near(str(made.data.get("path") or ""), folder)
        source = {**made.data, "path": images} if images else made.data
        name, spec = f"{made.name} as {made.kind} latents", replace(made.spec, latents=latents)
        origin = (source, made.fingerprint)
        return Data(name, spec, train, validation, test, manifest.fingerprint, source=origin)

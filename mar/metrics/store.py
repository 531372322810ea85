"""Generated examples on disk: one folder, filled by any number of processes, resumed after a kill.

N examples · C channels · H height · W width

``store.json`` holds the question that the examples answer: weights, plan, guidance, head options, seed. A shard
``00000256.safetensors`` holds the examples from that number on with their labels and a checksum. Example k is a
function of the question and k alone, so any process may write a missing shard.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mar.core.errors import UserError
from mar.core.files import STORE, check_kind, digest, settings_digest, write_atomic
from mar.core.readers import read_json, read_tensors, reading
from mar.core.records import plain, refuse_other
from mar.core.spec import DataSpec
from mar.data.base import Split

DEFAULT_SHARD = 256
_SHARD = "generated images (delete it and generate again)"


@dataclass(frozen=True)
class Store:
    """A folder of generated examples; see ``create`` and ``open``.

    Attributes:
        question: all settings of the examples, plain values.
        shard: examples in each file but the last.
        look: fields of ``spec`` beside the shape.
    """

    path: Path
    question: dict[str, Any]
    shard: int
    look: dict[str, Any]

    @classmethod
    def create(
        cls, path: Path, question: dict[str, Any], spec: DataSpec, shard: int = DEFAULT_SHARD, **about: Any
    ) -> Store:
        """Return the store in ``path``; an existing one of the same question continues with its own shard size.

        Args:
            spec: of the data set that the examples imitate; their shape is read from the first of them.
            about: further content of ``store.json``: environment, run.

        Raises UserError: the folder holds other images (the message names the first difference) or something else.
        """
        if (path / STORE).is_file():
            found = cls.open(path)
            what, remedy = "images of another question", "choose another folder, or delete it"
            refuse_other(path, what, found.question, question, remedy=remedy)
            return found
        check_kind(path, STORE)
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()) and not any(path.glob(f".{STORE}*")):
            raise UserError(f"{path} is not empty and no store: choose another folder")
        modality = "image" if spec.modality == "latent" else spec.modality  # latents are decoded before they come here
        look = {"levels": spec.levels, "n_classes": spec.n_classes, "modality": modality}
        content = {"question": plain(question), "shard": shard, **look, **about}
        write_atomic(path / STORE, json.dumps(content, indent=1), durable=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open an existing store. Raises UserError: there is none."""
        file, what = path / STORE, "the settings of generated images"
        content = read_json(file, what)
        with reading(file, what):
            look = {"modality": str(content["modality"]), **{key: int(content[key]) for key in ("levels", "n_classes")}}
            if int(content["shard"]) < 1:
                raise ValueError(f"shards of {content['shard']} images")
            return cls(path, dict(content["question"]), int(content["shard"]), look)

    @property
    def spec(self) -> DataSpec:
        """Shape, levels and classes of an example. Raises UserError if there is none yet."""
        held, *shape = self._shape(0)
        if not held:
            raise UserError(f"{self.path} holds no images yet: the command that generates them goes on")
        return DataSpec(tuple(shape), **self.look)

    def missing(self, n: int) -> list[range]:
        """Return the shards of the first ``n`` examples that are missing or too short."""
        shards = (range(first, min(first + self.shard, n)) for first in range(0, n, self.shard))
        return [shard for shard in shards if self._shape(shard.start)[0] < len(shard)]

    def identity(self, n: int) -> str:
        """Return hexadecimal digits of the question and of the first ``n`` examples."""
        files = [self._file(first) for first in range(0, n, self.shard)]
        return settings_digest([self.question, n, [_metadata(file)["sha256"] for file in files]], 16)

    def count(self, n: int) -> int:
        """Return the number of existing examples among the first ``n``."""
        return n - sum(map(len, self.missing(n)))

    @property
    def size(self) -> int:
        """Number of examples before the first gap."""
        total = 0
        while (held := self._shape(total)[0]) == self.shard:
            total += held
        return total + held

    def write(self, shard: range, x_NCHW: torch.Tensor, label_N: torch.Tensor) -> None:
        """Write a shard atomically."""
        tensors = {"x": x_NCHW.contiguous(), "label": label_N.contiguous()}
        metadata = {"sha256": _checksum(tensors)}
        write_atomic(self._file(shard.start), lambda aside: save_file(tensors, aside, metadata=metadata), durable=True)

    def read(self, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return examples and labels (-1: none) of the shard that begins at ``first``.

        Raises UserError: it is missing or damaged.
        """
        file = self._file(first)
        tensors = read_tensors(file, _SHARD)
        with reading(file, _SHARD):
            if _checksum(tensors) != _metadata(file)["sha256"]:
                raise ValueError("its checksum differs")
            return tensors["x"], tensors["label"]

    def images(self, n: int | None = None) -> StoredImages:
        """Return the first ``n`` examples (None: all) as a split. Raises UserError: there are fewer."""
        there = self.size
        if n is not None and there < n:
            raise UserError(f"{self.path} holds {there} of {n} images: the command that generates them goes on")
        return StoredImages(self, there if n is None else n)

    def _file(self, first: int) -> Path:
        return self.path / f"{first:08d}.safetensors"

    def _shape(self, first: int) -> tuple[int, ...]:
        """Return (N, C, H, W) of a shard from its header; (0,) if it is missing or cut off."""
        try:
            with safe_open(self._file(first), framework="pt") as file:
                return tuple(file.get_slice("x").get_shape())
        except (OSError, SafetensorError):
            return (0,)


class StoredImages(Split):
    """The first ``n`` examples of a store. One shard is in memory at a time: ask in order."""

    def __init__(self, store: Store, n: int) -> None:
        self.store, self.n = store, n
        self._first, self._shard = -1, (torch.empty(0), torch.empty(0))

    def __len__(self) -> int:
        return self.n

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        parts, size = [], self.store.shard
        counts = (index_B // size).unique_consecutive(return_counts=True)[1].tolist()
        for index in index_B.split(counts):
            first = int(index[0]) // size * size
            if first != self._first:
                self._first, self._shard = first, self.store.read(first)
            parts.append([tensor[index - first] for tensor in self._shard])
        x_B, label_B = (torch.cat(column) for column in zip(*parts, strict=True))
        return x_B, label_B


def _metadata(file: Path) -> dict[str, str]:
    with reading(file, _SHARD), safe_open(file, framework="pt") as header:
        return header.metadata() or {}


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    parts = ((f"{name} {tuple(tensors[name].shape)};", tensors[name].numpy().data) for name in sorted(tensors))
    return digest(*chain.from_iterable(parts))

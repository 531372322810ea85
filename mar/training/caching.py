"""Encode a data set once, in shards: process r of n writes every n-th shard; undamaged shards are kept.

n examples of a shard · C latent channels · h, w rows, columns of latents
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from pydantic import TypeAdapter

from mar.core.errors import UserError
from mar.core.files import CACHE, checksum, remove, write_atomic
from mar.core.processes import Processes
from mar.core.records import refuse_other
from mar.data.base import Data, Split
from mar.data.shards import SPLITS, Manifest, Settings, ShardRecord, settings_in, shard_file, write_shard
from mar.tokenizers.autoencoder import AutoencoderTokenizer
from mar.tokenizers.kl import KL

_RECORD = TypeAdapter(ShardRecord)


class Flipped(Split):
    """A split twice: example N + i is example i mirrored."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return 2 * len(self.split)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, label_B = self.split.batch(index_B % len(self.split))
        return torch.where((index_B >= len(self.split))[:, None, None, None], x.flip(-1), x), label_B


def encode_all(
    data: Data, tokenizer: AutoencoderTokenizer, settings: Settings, folder: Path, processes: Processes,
    batch_size: int, progress: Callable[[int, int], None],
) -> Manifest:  # fmt: skip
    """Encode the missing and damaged shards of ``data`` in ``folder``, and write the manifest.

    Raises:
        UserError: the folder holds a cache of other settings, or latents are not finite.
    """
    tokenizer.to(processes.device).load()
    processes.on_main(lambda: _start(folder, settings, tokenizer))
    splits = {name: data.split(name) for name in SPLITS}
    if settings.flips:
        splits["train"] = Flipped(splits["train"])
    shards = [(name, first) for name in SPLITS for first in range(0, len(splits[name]), settings.shard)]
    mine = shards[processes.rank :: processes.world]
    with processes.together():
        for done, (name, first) in enumerate(mine):
            progress(done, len(mine))
            index = torch.arange(first, min(first + settings.shard, len(splits[name])))
            file = shard_file(folder, name, first // settings.shard)
            if not _is_undamaged(file):
                _write(file, *_encode(splits[name], index, tokenizer, settings, batch_size))
        progress(len(mine), len(mine))
        processes.wait()
    manifest = _manifest(folder, settings, shards)
    if processes.is_main:
        write_atomic(folder / "manifest.json", json.dumps(asdict(manifest), indent=1))
    return manifest


def _start(folder: Path, settings: Settings, tokenizer: AutoencoderTokenizer) -> None:
    """Create the folder with its settings and a copy of the autoencoder."""
    if there := settings_in(folder):
        refuse_other(folder, "a cache of other settings", there, asdict(settings), {"data.path", "data.workers"})
    elif (folder / CACHE).is_file():  # damaged, and what its shards hold is unknown: all are made again
        for name in ("manifest.json", *SPLITS):
            remove(folder / name)
    for name in ("tokenizer", *SPLITS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for source in tokenizer.folder.files:
        if source.resolve() != (folder / "tokenizer" / source.name).resolve():
            shutil.copyfile(source, folder / "tokenizer" / source.name)
    write_atomic(folder / CACHE, json.dumps(asdict(settings), indent=1))


def _encode(
    split: Split, index: torch.Tensor, tokenizer: AutoencoderTokenizer, settings: Settings, batch_size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return latents and labels. KL: (n, 2, C, h, w) means and standard deviations; VQ: (n, h, w) indices."""
    latents, labels = [], []
    for x, label_B in _ahead(split, index.split(batch_size)):
        x = x.to(next(tokenizer.buffers()).device)
        if isinstance(tokenizer, KL):
            latent = torch.stack(tokenizer.posterior(x), 1).to(getattr(torch, settings.precision))
        else:
            small = tokenizer.token.vocabulary <= 2**15  # type: ignore[union-attr]
            latent = tokenizer.encode(x).unflatten(1, tokenizer.shape).to(torch.int16 if small else torch.int32)
        if not bool(latent.isfinite().all()):
            numbers = f"{int(index[0])} to {int(index[-1])}"
            raise UserError(f"latents of examples {numbers} are not finite in {settings.precision}")
        latents.append(latent.cpu())
        labels.append(label_B)
    label = None if labels[0] is None else torch.cat(cast(list[torch.Tensor], labels)).long().numpy()
    return torch.cat(latents).numpy(), label


def _ahead(split: Split, parts: tuple[torch.Tensor, ...]) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Yield batches; the next one is read while the current one is encoded."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(split.batch, parts[0])
        for part in parts[1:]:
            batch, following = following.result(), reader.submit(split.batch, part)
            yield batch
        yield following.result()


def _write(file: Path, latent: np.ndarray, label: np.ndarray | None) -> None:
    """Write a shard, then its record."""
    write_atomic(file, lambda aside: write_shard(aside, latent, label))
    moments: list[tuple[float, ...]] = []
    if latent.ndim == 5:
        mean_NChw, std_NChw = latent.astype(np.float64).swapaxes(0, 1)
        moments = [tuple(x.mean((0, 2, 3)).tolist()) for x in (mean_NChw, mean_NChw**2 + std_NChw**2)]
    record = ShardRecord(len(latent), file.stat().st_size, checksum(file), *moments)
    write_atomic(file.with_suffix(".json"), json.dumps(asdict(record)))


def _record(file: Path) -> ShardRecord:
    return _RECORD.validate_json(file.with_suffix(".json").read_bytes())


def _is_undamaged(file: Path) -> bool:
    try:
        record = _record(file)
        return file.stat().st_size == record.bytes and checksum(file) == record.sha256
    except (OSError, ValueError):
        return False


def _manifest(folder: Path, settings: Settings, shards: list[tuple[str, int]]) -> Manifest:
    """Collect the records of all shards and the scale of the training split's latents."""
    records: dict[str, list[ShardRecord]] = {name: [] for name in SPLITS}
    for name, first in shards:
        records[name].append(_record(shard_file(folder, name, first // settings.shard)))
    weight_N = np.array([record.count for record in records["train"]], np.float64)
    mean_C, square_C = (
        weight_N @ np.array([getattr(record, key) for record in records["train"]]) / weight_N.sum()
        for key in ("mean", "square")
    )
    std_C = np.sqrt(square_C - mean_C**2)
    return Manifest(settings, tuple(mean_C.tolist()), tuple(std_C.tolist()), {k: tuple(v) for k, v in records.items()})

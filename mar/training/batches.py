"""Batches: a function of (seed, iteration, position), never of the number of processes.

B batch · L tokens · E token channels
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise, stream
from mar.data.base import Split


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one process."""

    x: torch.Tensor  # (B, *shape), the data
    label_B: torch.Tensor  # classes, -1: no label; or conditions
    position_B: torch.Tensor  # positions in the iteration's global batch
    noise: Noise  # one stream per row, keyed by the number of examples seen before it


def examples(seed: int, first: int, count: int, size: int) -> torch.Tensor:
    """Return the indices of examples first..first+count-1 of the endless shuffled sequence over a split of ``size``.

    Every epoch is a new permutation, and no example is dropped between epochs.
    """
    number = torch.arange(first, first + count)
    out = torch.empty_like(number)
    for epoch in (number // size).unique().tolist():
        here = number // size == epoch
        out[here] = _epoch(seed, epoch, size)[number[here] % size]
    return out


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, size: int) -> torch.Tensor:
    return stream(seed, "epoch", torch.tensor([epoch])).uniform(size)[0].argsort(stable=True)


def labels_or_none(label_B: torch.Tensor | None, count: int) -> torch.Tensor:
    """Return classes as int64, -1 where the data have none; conditions as they are."""
    if label_B is None:
        return torch.full((count,), -1)
    return label_B if label_B.is_floating_point() else label_B.long()


class Batches:
    """The micro-batches of one process. The next iteration's are read while the current ones are used."""

    def __init__(
        self, split: Split, seed: int, batch_size: int, accumulation: int, rank: int, world: int, device: torch.device,
        n_classes: int = 0,
    ) -> None:  # fmt: skip
        self.split, self.seed, self.batch_size, self.device, self.n_classes = split, seed, batch_size, device, n_classes
        shares = torch.arange(batch_size).tensor_split(world * accumulation)  # of sizes that differ by one at most
        self.positions = shares[rank * accumulation : (rank + 1) * accumulation]
        self._reader = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[list[Batch]]] = {}

    def at(self, iteration: int) -> list[Batch]:
        """Return the micro-batches of an iteration, on the device."""
        ready = self._ahead.pop(iteration, None)
        batches = self._read(iteration) if ready is None else ready.result()
        self._ahead = {iteration + 1: self._reader.submit(self._read, iteration + 1)}
        return batches

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)

    def _read(self, iteration: int) -> list[Batch]:
        first = iteration * self.batch_size
        index = examples(self.seed, first, self.batch_size, len(self.split))
        out = []
        for position_B in self.positions:
            epoch_B = (first + position_B) // len(self.split)
            x, label_B = self.split.training_batch(index[position_B], epoch_B)
            label_B = labels_or_none(label_B, len(position_B))
            if self.n_classes and bool((wrong_B := label_B >= self.n_classes).any()):
                which = int(wrong_B.nonzero()[0, 0])
                raise UserError(
                    f"training example {int(index[position_B][which])} has label {int(label_B[which])}, and classes "
                    f"are 0..{self.n_classes - 1}: mend the labels, or set class_conditional=false"
                )
            noise = Noise(self.seed, "train", (first + position_B).to(self.device))
            out.append(Batch(x.to(self.device), label_B.to(self.device), position_B, noise))
        return out

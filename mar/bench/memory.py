"""The most memory that a block of code uses above what was in use before: of the process, or of its tensors alone."""

from __future__ import annotations

import ctypes
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_STATM = Path("/proc/self/statm")  # resident memory, in pages
_PAGE = 4096


def memory_peak(device: torch.device) -> CudaPeak | ResidentPeak:
    """A context with ``bytes`` after it: of a GPU's allocator; on a CPU of the whole process, None where unknown."""
    return CudaPeak(device) if device.type == "cuda" else ResidentPeak()


def tensor_peak(device: torch.device) -> CudaPeak | LiveTensors:
    """The same of the tensors made inside, without what a CPU's allocator keeps around them."""
    return CudaPeak(device) if device.type == "cuda" else LiveTensors()


class CudaPeak:
    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes = device, 0

    def __enter__(self) -> CudaPeak:
        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = torch.cuda.max_memory_allocated(self.device) - self.before


class ResidentPeak:
    def __init__(self) -> None:
        self.bytes: int | None = None
        self.ended = threading.Event()

    def __enter__(self) -> ResidentPeak:
        if _STATM.exists():
            _give_back_freed()
            self.before = self.most = _resident_bytes()
            self.watcher = threading.Thread(target=self._watch, daemon=True)
            self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if _STATM.exists():
            self.ended.set()
            self.watcher.join()
            self.bytes = max(self.most, _resident_bytes()) - self.before

    def _watch(self) -> None:
        while not self.ended.wait(0.005):
            self.most = max(self.most, _resident_bytes())


def _give_back_freed() -> None:
    """Freed memory that the C library keeps would hide the next peak."""
    with suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE


class LiveTensors(TorchDispatchMode):
    """The storages made by PyTorch's operators that are still alive, at their most."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.now, self.alive = 0, 0, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and (storage := x.untyped_storage())._cdata not in given:
                self._count(storage)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive.add(key)
            self.now += size
            self.bytes = max(self.bytes, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size

"""Instruments: paired times, floating-point operations, peak memory, the matrix peak, a stopwatch on methods."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

_STATM = Path("/proc/self/statm")  # resident memory, in pages
_PAGE = 4096


LEAST_ROUNDS, MOST_ROUNDS = 3, 100
# "cpu" is the processor time of this process, which a busy machine does not lengthen; it counts every thread.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(
    works: Mapping[str, Callable[[int], None]],
    seconds: float,
    device: torch.device,
    clock: str = "wall",
    least: int = LEAST_ROUNDS,
    repeats: int = 1,
) -> dict[str, tuple[float, ...]]:
    """Time each work in rounds: every round runs all of them with the same numbers, in alternating order.

    A round runs a work ``repeats`` times without waiting for the device in between, and keeps the mean. A machine that
    slows down for a while slows all works of a round, so compare round by round and take the median.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    now = CLOCKS[clock]
    started, rounds = time.perf_counter(), 0
    while rounds < least or (rounds < MOST_ROUNDS and time.perf_counter() - started < seconds):
        for name in list(works)[:: -1 if rounds % 2 else 1]:
            synchronise(device)
            start = now()
            for number in range(repeats):
                works[name](rounds * repeats + number)
            synchronise(device)
            times[name].append((now() - start) / repeats)
        rounds += 1
    return {name: tuple(values) for name, values in times.items()}


@dataclass
class Footprint:
    """``flops`` executed by matrix products and attention, and ``peak_bytes`` above the memory in use before."""

    flops: float = 0.0
    peak_bytes: int | None = None


@contextmanager
def footprint(device: torch.device) -> Iterator[Footprint]:
    """Count the operations and the peak memory of the body. On a CPU, memory is the process's, read every 5 ms."""
    found, counter = Footprint(), _Operations()
    with _cuda_peak(found, device) if device.type == "cuda" else _resident_peak(found), counter:
        yield found
    found.flops = float(counter.flops)


@contextmanager
def _cuda_peak(found: Footprint, device: torch.device) -> Iterator[None]:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield
    found.peak_bytes = torch.cuda.max_memory_allocated(device) - before


@contextmanager
def _resident_peak(found: Footprint) -> Iterator[None]:
    if not _STATM.exists():
        yield
        return
    with suppress(AttributeError, OSError):  # glibc alone has it; memory kept by the C library would hide the peak
        ctypes.CDLL(None).malloc_trim(0)
    ended, seen = threading.Event(), [_resident_bytes()]

    def watch() -> None:
        while not ended.wait(0.005):
            seen.append(_resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    found.peak_bytes = max(*seen, _resident_bytes()) - seen[0]


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE


class _Operations(TorchDispatchMode):
    """PyTorch's formulas, without the module hooks of its own counter, which fail on views made without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._overloadpacket
        if name not in _FORMULAS:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if name in _FORMULAS:
            self.flops += _FORMULAS[name](*args, **kwargs, out_val=out)
        return out


def _cpu_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return flop_counter.sdpa_flop_count(query.shape, key.shape, value.shape)


def _cpu_attention_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    return flop_counter.sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


def _cpu_lstm(x_TBI: torch.Tensor, input_weight: torch.Tensor, state_weight: torch.Tensor, *_: Any, **__: Any) -> int:
    return 2 * x_TBI[..., 0].numel() * (input_weight.numel() + state_weight.numel())


def _cpu_lstm_backward(*args: Any, **kwargs: Any) -> int:
    return 2 * _cpu_lstm(*args, **kwargs)


_FORMULAS = {
    **flop_counter.flop_registry,  # which has no fused attention and no fused LSTM of a CPU
    torch.ops.aten.mkldnn_rnn_layer: _cpu_lstm,
    torch.ops.aten.mkldnn_rnn_layer_backward: _cpu_lstm_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
}


def matrix_peak(device: torch.device, dtype: torch.dtype, clock: str = "wall") -> float:
    """Return the operations per second of the best of five large square matrix products."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))  # constants run faster than data do
    best = float("inf")
    for _ in range(6):  # the first one warms up
        synchronise(device)
        start = CLOCKS[clock]()
        torch.mm(a, b)
        synchronise(device)
        best = min(best, CLOCKS[clock]() - start)
    return 2.0 * side**3 / best


@contextmanager
def stopwatch(
    parts: Mapping[str, Sequence[tuple[Any, str]]], device: torch.device, clock: str = "wall"
) -> Iterator[dict[str, float]]:
    """Time methods of objects while the body runs, in seconds; ``parts``: name -> (object, method)."""
    seconds, now = dict.fromkeys(parts, 0.0), CLOCKS[clock]

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            synchronise(device)
            start = now()
            result = method(*args, **kwargs)
            synchronise(device)
            seconds[part] += now() - start
            return result

        return call

    for part, methods in parts.items():
        for owner, name in methods:
            setattr(owner, name, timed(part, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for methods in parts.values():
            for owner, name in methods:
                delattr(owner, name)  # the class's own method shows again

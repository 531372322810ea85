"""Instruments: paired times, floating-point operations, peak memory, the matrix peak, a stopwatch on methods."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

LEAST_ROUNDS, MOST_ROUNDS = 3, 100
# "cpu" is the processor time of this process, which a busy machine does not lengthen; it counts every thread.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(
    works: Mapping[str, Callable[[int], object]],
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
    """Count the operations and the peak memory of the body; on a CPU, memory is that of the process, if Linux says."""
    found, counter, before = Footprint(), _Operations(), _start_of_peak(device)
    with counter:
        yield found
    found.flops = float(counter.flops)
    if device.type == "cuda":
        found.peak_bytes = torch.cuda.max_memory_allocated(device) - (before or 0)
    elif before is not None:
        found.peak_bytes = _resident("VmHWM") - before


def _start_of_peak(device: torch.device) -> int | None:
    """Reset the peak of the memory in use; return the bytes in use now, None where no peak is known."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(AttributeError, OSError):  # glibc alone has it; memory kept by the C library would hide the peak
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(kind: str) -> int:
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


class _Operations(TorchDispatchMode):
    """PyTorch's formulas, without the module hooks of its own counter, which fail on views made without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, formula = kwargs or {}, _FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        out = func(*args, **kwargs)
        self.flops += formula(*args, **kwargs, out_val=out)
        return out


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> int:
    return flop_counter.sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(grad: torch.Tensor, *rest: torch.Tensor, **_: Any) -> int:
    return flop_counter.sdpa_backward_flop_count(grad.shape, *(x.shape for x in rest[:3]))


def _lstm(x_TBI: torch.Tensor, input_weight: torch.Tensor, state_weight: torch.Tensor, *_: Any, **__: Any) -> int:
    return 2 * x_TBI[..., 0].numel() * (input_weight.numel() + state_weight.numel())


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_counter.flop_registry,  # which has no fused attention and no fused LSTM of a CPU
    torch.ops.aten.mkldnn_rnn_layer: _lstm,
    torch.ops.aten.mkldnn_rnn_layer_backward: lambda *args, **kwargs: 2 * _lstm(*args, **kwargs),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def matrix_peak(device: torch.device, dtype: torch.dtype, clock: str = "wall") -> float:
    """Return the operations per second of the best of five large square matrix products."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))  # constants run faster than data do
    _, *times = interleave({"": lambda _: torch.mm(a, b)}, 0.0, device, clock, least=6)[""]  # the first one warms up
    return 2.0 * side**3 / min(times)


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

    methods = [(part, owner, name) for part, owned in parts.items() for owner, name in owned]
    for part, owner, name in methods:
        setattr(owner, name, timed(part, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for _, owner, name in methods:
            delattr(owner, name)  # the class's own method shows again

"""Processes, devices and signals: the only file that imports accelerate.

Two groups connect the processes. Gradients and losses travel between the devices (NCCL; gloo on CPUs). Agreements (a
denominator, a stop request, the checkpoint found by the main process) travel between the CPUs, so that they never wait
for a GPU.

A stop request (SIGINT, SIGTERM, ``train.save_on``) ends the run after the iteration in progress has been saved, with
exit code 128 + the signal's number. Slurm sends SIGTERM before a job ends; the launch files in ``scripts/`` requeue it
at 143.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar, cast

import torch
from torch import distributed, nn

from mar.core.devices import NAMES, choose
from mar.core.errors import MarError, PeerFailed, UserError, unknown
from mar.core.log import logger
from mar.core.peers import Peers
from mar.core.signals import end_with
from orderings.user import is_file_target, load_class

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]
T = TypeVar("T")

_ECHO_SECONDS = 2.0  # a second SIGINT within this time is the first one, forwarded by a launcher
_MEETING = timedelta(minutes=5)  # in which the processes connect
_LONGEST = timedelta(minutes=30)  # of a collective between devices; a death ends it long before
_PATIENCE = timedelta(hours=2)  # the other processes wait while the main one saves, validates and samples


class Stop:
    """The first signal received (0: no signal). A second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.signal, self._at = 0, 0.0

    def receive(self, number: int, frame: Any) -> None:
        if not self.signal:
            self.signal, self._at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._at > _ECHO_SECONDS:
            raise KeyboardInterrupt


def resolve_precision(precision: Precision, cpu: bool = False) -> Precision:
    """Replace ``auto``: bf16 on GPUs with bf16 hardware, fp32 elsewhere."""
    if precision != "auto":
        return precision
    if cpu:
        return "fp32"
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def emulates_bf16() -> bool:
    """Return True on a CPU without bf16 instructions: bf16 is several times slower than fp32 there."""
    return platform.machine() in ("x86_64", "AMD64") and not torch.cpu._is_avx512_bf16_supported()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on ``count`` threads of the CPU, then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _one_line(watched: bool = False) -> Iterator[None]:
    """Turn the error of a collective without its peer into a line and PeerFailed, unless ``Peers`` watch."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if watched or not (isinstance(error, distributed.DistError | OSError) or "gloo" in str(error)):
            raise
        logger.error("mar: another process has died or is missing, so all end: run the same command again")
        raise PeerFailed(1) from None


_LAUNCH = ("ACCELERATE_USE_CPU", "ACCELERATE_CPU_AFFINITY", "ACCELERATE_LOG_LEVEL", "ACCELERATE_DEBUG_MODE")


def _drop_settings_of_accelerate() -> list[str]:
    """Delete accelerate's settings from the environment: they change gradients, precision and compilation in silence.

    Return those that ask for something, as NAME=VALUE. Where a process runs (``_LAUNCH``) is no such setting.
    """
    asked = []
    for name in [name for name in os.environ if name.startswith("ACCELERATE_") and name not in _LAUNCH]:
        value = os.environ.pop(name)
        if value.lower() not in ("", "0", "no", "none", "false") and (value != "1" or not name.endswith("_STEPS")):
            asked.append(f"{name}={value}")
    return asked


class Processes:
    """This process and its peers, started by ``torchrun``, ``srun``, ``accelerate-launch``, or alone.

    Args:
        precision: precision of the network's matrix products.
        device: cpu, cuda, xpu or mps; "": as ``mar.core.devices.choose``.
        parallel: every process holds the whole model (``ddp``) or a share of every parameter (``fsdp``).

    Raises:
        UserError: there is no such device, or it does not support ``precision``.
    """

    def __init__(self, precision: Precision = "fp32", parallel: Parallel = "ddp", device: str = "") -> None:
        from mar.core import torchvision  # noqa: F401  (accelerate looks at torchvision)

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads())))
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise UserError("accelerate's own FSDP is not used: launch without it, and set train.parallel=fsdp")
        device = choose(device)
        if device not in NAMES:
            raise unknown("device", device, NAMES)
        if device in ("xpu", "mps") and torch.cuda.is_available():
            raise UserError("this machine has CUDA GPUs, which come first: leave out --device")
        cpu = device == "cpu"
        self.precision = resolve_precision(precision, cpu)
        if self.precision == "fp16" and (cpu or parallel == "fsdp"):
            raise UserError("train.precision=fp16 needs a GPU and train.parallel=ddp: use bf16 or fp32")
        ignored = _drop_settings_of_accelerate()
        mixed, meeting = "no" if self.precision == "fp32" else self.precision, InitProcessGroupKwargs(timeout=_MEETING)
        with _one_line():
            self.accelerator = Accelerator(mixed_precision=mixed, cpu=cpu, kwargs_handlers=[meeting])
            self.rank: int = self.accelerator.process_index
            self.world: int = self.accelerator.num_processes
            self._cpus: Any = distributed.new_group(backend="gloo", timeout=_MEETING) if self.world > 1 else None
        for group, longest in ((None, _LONGEST), (self._cpus, _PATIENCE)) if self.world > 1 else ():
            distributed.distributed_c10d._set_pg_timeout(longest, group)
        self.device: torch.device = self.accelerator.device
        self.is_main, self._watched = self.rank == 0, False
        if ignored and self.is_main:
            logger.info(f"note: {', '.join(ignored)} of the environment: not used, the recipe states how to train")
        if self.precision == "bf16" and cpu and self.is_main and emulates_bf16():
            line = "note: this CPU has no bf16 instructions: train.precision=auto takes fp32, several times faster"
            logger.info(line)
        self.scales_loss = self.accelerator.scaler is not None  # fp16: steps with overflowing gradients are skipped
        self.shards = parallel == "fsdp" and self.world > 1
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun starts no process that outlives it
            end_with(os.getppid())

    # Training.

    def shard(self, module: nn.Module, blocks: Iterable[nn.Module]) -> None:
        """Under ``fsdp``, shard the parameters in place (FSDP2; Zhao et al. 2023, arXiv 2304.11277), block by block."""
        if not self.shards:
            return
        from torch.distributed.fsdp import fully_shard

        for block in blocks:
            fully_shard(block)
        fully_shard(module)

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Return the module wrapped for data-parallel training and autocast, and its optimiser."""
        wrapped = self.accelerator.prepare_model(module, evaluation_mode=self.shards)  # sharded: autocast only
        return wrapped, self.accelerator.prepare_optimizer(optimizer)

    def clip(self, module: nn.Module, norm: float) -> torch.Tensor:
        """Clip the gradient in place and return its norm."""
        total: Any = self.accelerator.clip_grad_norm_(module.parameters(), norm)
        total = torch.as_tensor(0.0 if total is None else total)
        return total.full_tensor() if is_sharded(total) else total

    @contextmanager
    def no_sync(self, module: nn.Module) -> Iterator[None]:
        """Accumulate the gradients of this micro-batch on this process alone."""
        if not self.shards:
            with self.accelerator.no_sync(module):
                yield
            return
        sharded: Any = module
        sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            sharded.set_requires_gradient_sync(True)

    def gather_full(self, state: T) -> T:
        """Gather the sharded tensors in nested dicts and lists: on the main process's CPU, empty on the others."""

        def gathered(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: gathered(inner) for key, inner in value.items()}
            if isinstance(value, list):
                return [gathered(inner) for inner in value]
            if not is_sharded(value):
                return value
            full = value.full_tensor().detach()
            return full.cpu() if self.is_main else full.new_empty(0)

        return gathered(state)

    # Agreement between processes.

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Sum each number over the processes."""
        if self._cpus is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with _one_line(self._watched):
            distributed.all_reduce(total, group=self._cpus)
        return total.tolist()

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes."""
        return tensor if self.world == 1 else cast(torch.Tensor, self.accelerator.reduce(tensor, reduction="sum"))

    def broadcast(self, value: T) -> T:
        """Return the main process's value on every process."""
        if self._cpus is None:
            return value
        values = [value]
        with _one_line(self._watched):
            distributed.broadcast_object_list(values, src=0, group=self._cpus, device=torch.device("cpu"))
        return values[0]

    def on_main(self, action: Callable[[], T]) -> T:
        """Run ``action`` on the main process and return its result on every process. Raises as ``on_all``."""
        return self.broadcast(self.on_all(lambda: action() if self.is_main else cast(T, None)))

    def on_all(self, action: Callable[[], T]) -> T:
        """Run ``action`` on every process, wait for all, and return this process's result.

        Raises:
            MarError: raised by the action, on the first process where it failed. PeerFailed: on the others.
        """
        result, error = None, None
        try:
            result = action()
        except MarError as refusal:
            error = refusal
        failed = self.all_reduce_sum(*(rank == self.rank and error is not None for rank in range(self.world)))
        if not any(failed):
            return cast(T, result)
        raise error if error is not None and failed.index(1.0) == self.rank else PeerFailed(2)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside the block, end within 30 seconds if another process dies, with one line from one of all.

        Raises:
            PeerFailed: another process has died.
        """
        if self.world == 1:
            yield
            return
        with _one_line():
            peers, done = Peers(self.rank, self.world, self.broadcast), False
        self._watched = True
        try:
            yield
            done = True
        except RuntimeError:  # of a collective; the system tells of a death within moments
            if not peers.dead.wait(2.0):
                raise
            peers.say()
            raise PeerFailed(1) from None
        finally:
            self._watched = False
            peers.leave(done)

    def wait(self) -> None:
        if self._cpus is not None:
            with _one_line(self._watched):
                distributed.barrier(group=self._cpus)

    def end(self) -> None:
        """Leave the process group."""
        if self.world > 1:
            self.accelerator.end_training()
            if distributed.is_initialized():
                distributed.destroy_process_group()


def tracker_class(name: str) -> Any:
    """Return accelerate's class of a tracker, or a subclass of its ``GeneralTracker`` in FILE.py:Class.

    Raises UserError: there is no such class.
    """
    from mar.core import torchvision  # noqa: F401, I001 - before accelerate
    from accelerate import tracking

    if is_file_target(name):
        return load_class(name, (tracking.GeneralTracker,), UserError)
    if name not in tracking.LOGGER_TYPE_TO_CLASS:
        raise UserError(f"the installed version of accelerate has no tracker {name}: update it")
    return tracking.LOGGER_TYPE_TO_CLASS[name]


def is_sharded(value: Any) -> TypeGuard[DTensor]:
    """Return True for a DTensor, without importing its module: a second of processor time that few runs need."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def local_shards(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return this process's shares of sharded tensors, and other tensors as they are."""
    return [tensor.to_local() if is_sharded(tensor) else tensor for tensor in tensors]


def shard_like(full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return this process's share of a full tensor, sharded like ``like``."""
    if not is_sharded(like) or full.shape != like.shape:
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

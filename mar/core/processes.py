"""Stopping when asked: the iteration in progress ends, is saved, and the run ends with 128 + the signal's number.

Slurm sends SIGTERM before it preempts a job or its time is up, and so does torchrun to its workers; 143 is what a shell
reports of a process that SIGTERM ended, and what the launch files in ``scripts/`` put a job back in the queue for.

Processes and devices: the only file that imports accelerate.

Two groups connect the processes. Gradients and losses go between the devices (NCCL; gloo on CPUs). What the processes
agree on, such as a denominator, a wish to stop, or what the first one found on disk, goes between the CPUs, so that
agreeing never waits for a GPU.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
from torch import distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mar.core.errors import EndedElsewhere, InvalidRequest, Unsupported, UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


_ECHO = 2.0  # seconds in which a second Ctrl-C is the same one, passed on by a launcher


class Stop:
    """The first signal that came; 0: none. A second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal, self._at = 0, 0.0

    def _receive(self, number: int, frame: Any) -> None:
        if not self.signal:
            self.signal, self._at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._at > _ECHO:
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


Precision = Literal["auto", "fp32", "bf16", "fp16"]


Parallel = Literal["ddp", "fsdp"]


T = TypeVar("T")


_PATIENCE = timedelta(hours=2)  # the others wait while the first process saves, validates and samples


def settle_precision(precision: Precision) -> Precision:
    """``auto``: bf16 on GPUs that compute in it, fp32 elsewhere."""
    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


class Processes:
    """This process among its peers, under ``torchrun``, ``srun``, ``accelerate-launch``, or alone.

    Args:
        precision: of the network's matrix products.
        parallel: every process holds the whole model (``ddp``), or a share of every parameter (``fsdp``).

    Raises:
        UserError: the device cannot compute in ``precision``.
    """

    def __init__(self, precision: Precision = "fp32", parallel: Parallel = "ddp") -> None:
        from mar.core import torchvision  # noqa: F401  (accelerate looks at torchvision)

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads())))
        from accelerate import Accelerator

        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise UserError("accelerate's own FSDP is not used: launch without it, and set train.parallel=fsdp")
        cpu = not torch.cuda.is_available()
        self.precision = settle_precision(precision)
        if self.precision == "fp16" and (cpu or parallel == "fsdp"):
            raise UserError("train.precision=fp16 wants a GPU and train.parallel=ddp: use bf16 or fp32")
        mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[self.precision]
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=cpu)
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        self.device: torch.device = self.accelerator.device
        self.shards = parallel == "fsdp" and self.world > 1
        self._cpus: Any = distributed.new_group(backend="gloo", timeout=_PATIENCE) if self.world > 1 else None

    @property
    def scales_loss(self) -> bool:
        """fp16: steps whose gradient overflows are skipped."""
        return self.accelerator.scaler is not None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    # What is trained.

    def shard(self, module: nn.Module, blocks: Iterable[nn.Module]) -> None:
        """Under ``fsdp``, in place: parameters become shares (DTensors), gathered for each of ``blocks`` when it is
        used, and all others for the whole forward and backward pass (FSDP2; Zhao et al. 2023, arXiv 2304.11277)."""
        if not self.shards:
            return
        from torch.distributed.fsdp import fully_shard

        for block in blocks:
            fully_shard(block)
        fully_shard(module)

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The module wrapped for data-parallel training and autocast, and its optimiser."""
        wrapped = self.accelerator.prepare_model(module, evaluation_mode=self.shards)  # sharded: autocast only
        return wrapped, self.accelerator.prepare_optimizer(optimizer)

    def unwrap(self, module: nn.Module) -> nn.Module:
        """The module under the data-parallel wrapper, its autocast kept."""
        return self.accelerator.unwrap_model(module, keep_fp32_wrapper=True)

    def autocast(self) -> Any:
        return self.accelerator.autocast()

    def backward(self, loss: torch.Tensor) -> None:
        self.accelerator.backward(loss)

    def clip(self, module: nn.Module, norm: float) -> torch.Tensor:
        """Clips the gradient in place and returns its norm."""
        total: Any = self.accelerator.clip_grad_norm_(module.parameters(), norm)
        total = torch.as_tensor(0.0 if total is None else total)
        return total.full_tensor() if isinstance(total, DTensor) else total

    @contextmanager
    def no_sync(self, module: nn.Module) -> Iterator[None]:
        """Gradients of this micro-batch stay on their process."""
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

    def whole(self, state: T) -> T:
        """Nested dicts and lists with every share gathered: on the CPU of the first process, empty on the others."""
        return cast(T, _mapped(state, self._gathered))

    def _gathered(self, value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        whole = value.full_tensor().detach()
        return whole.cpu() if self.is_main else whole.new_empty(0)

    # What the processes agree on.

    def sums(self, *values: float) -> list[float]:
        """The sum of each number over the processes."""
        if self._cpus is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total, group=self._cpus)
        return total.tolist()

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes."""
        return tensor if self.world == 1 else cast(torch.Tensor, self.accelerator.reduce(tensor, reduction="sum"))

    def share(self, value: T) -> T:
        """The first process's value."""
        if self._cpus is None:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self._cpus, device=torch.device("cpu"))
        return values[0]

    def first(self, action: Callable[[], T]) -> T:
        """What ``action`` returns on the first process, while the others wait.

        Raises:
            UserError: the action's, on the first process. EndedElsewhere: the same on the others.
        """
        result, error = None, None
        if self.is_main:
            try:
                result = action()
            except UserError as refusal:
                error = refusal
        result, failed = self.share((result, error is not None))
        if error is not None:
            raise error
        if failed:
            raise EndedElsewhere(2)
        return cast(T, result)

    def each(self, action: Callable[[], T]) -> T:
        """What ``action`` returns on this process, once it has ended on all of them.

        Raises:
            UserError and its like: the action's, on the first process where it failed. EndedElsewhere: on the others.
        """
        result, error = None, None
        try:
            result = action()
        except (UserError, Unsupported, InvalidRequest) as refusal:
            error = refusal
        failed = self.sums(*(rank == self.rank and error is not None for rank in range(self.world)))
        if not any(failed):
            return cast(T, result)
        raise error if error is not None and failed.index(1.0) == self.rank else EndedElsewhere(2)

    def wait(self) -> None:
        if self._cpus is not None:
            distributed.barrier(group=self._cpus)

    def end(self) -> None:
        """Leave the process group."""
        if self.world > 1:
            self.accelerator.end_training()
            if distributed.is_initialized():
                distributed.destroy_process_group()


def shared_out(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's share of a tensor that every process has whole, cut as ``like`` is."""
    if not isinstance(like, DTensor) or whole.shape != like.shape:
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _mapped(state: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(state, dict):
        return {key: _mapped(value, change) for key, value in state.items()}
    if isinstance(state, list):
        return [_mapped(value, change) for value in state]
    return change(state)

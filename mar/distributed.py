"""Processes and devices: the only file that imports accelerate."""

from __future__ import annotations

import os
from typing import Any, Literal, cast

import torch
from torch import nn

from mar.errors import UserError


class Processes:
    """This process among its peers, under ``torchrun``, ``accelerate-launch``, or alone.

    Raises:
        UserError: the device cannot compute in ``precision``.
    """

    def __init__(self, precision: Literal["fp32", "bf16", "fp16"] = "fp32") -> None:
        from mar.compat import torchvision_repair  # noqa: F401  (accelerate looks at torchvision)

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads())))
        from accelerate import Accelerator

        cpu = not torch.cuda.is_available()
        if precision == "fp16" and cpu:
            raise UserError("train.precision=fp16 wants a GPU: use bf16 or fp32 on a CPU")
        mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[precision]
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=cpu)
        self.rank: int = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        self.device: torch.device = self.accelerator.device

    @property
    def scales_loss(self) -> bool:
        """fp16: steps whose gradient overflows are skipped."""
        return self.accelerator.scaler is not None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The module wrapped for data-parallel training and autocast, and its optimiser."""
        prepared = self.accelerator.prepare(module, optimizer)
        return prepared[0], prepared[1]

    def unwrap(self, module: nn.Module) -> nn.Module:
        """The module under the data-parallel wrapper, its autocast kept."""
        return self.accelerator.unwrap_model(module, keep_fp32_wrapper=True)

    def autocast(self) -> Any:
        return self.accelerator.autocast()

    def backward(self, loss: torch.Tensor) -> None:
        self.accelerator.backward(loss)

    def clip(self, module: nn.Module, norm: float) -> torch.Tensor:
        """Clips the gradient in place and returns its norm."""
        total = self.accelerator.clip_grad_norm_(module.parameters(), norm)
        return torch.as_tensor(0.0 if total is None else total)

    def no_sync(self, module: nn.Module) -> Any:
        """Gradients of this micro-batch stay on their process."""
        return self.accelerator.no_sync(module)

    def sum(self, value: float) -> float:
        """The sum of a number over the processes."""
        if self.world == 1:
            return value
        return float(self.sum_tensor(torch.tensor(value, dtype=torch.float64, device=self.device)))

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes."""
        return tensor if self.world == 1 else cast(torch.Tensor, self.accelerator.reduce(tensor, reduction="sum"))

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def end(self) -> None:
        """Leave the process group."""
        if self.world > 1:
            self.accelerator.end_training()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

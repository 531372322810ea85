"""The training loop, for models and autoencoders: batch, loss, backward, step, EMA, log, save, evaluate, resume.

With the learning rate as a pure function of the iteration, and averaged weights (EMA, in float32).
"""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from mar.config import Train
from mar.core.errors import PeerFailed, Stopped
from mar.core.log import logger
from mar.core.noise import derived_seed
from mar.core.processes import Processes, Stop, local_shards, shard_like
from mar.core.signals import handled
from mar.training import checkpoint
from mar.training.batches import Batch, Batches
from mar.training.blocks import transformer_blocks
from mar.training.job import Job, Progress
from mar.training.optimizers import load_optimizer, make_optimizer
from mar.training.run_folder import RunFolder


class EMA:
    """Exponential moving average. The decay after n updates is min(decay, (1 + n) / (10 + n)), for short runs.

    Sharded weights are averaged shard by shard.
    """

    def __init__(self, model: nn.Module, decay: float, sharded: bool = False) -> None:
        self.decay, self.sharded = decay, sharded
        self.weights = {name: p.detach().float().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, n: int) -> None:
        decay = min(self.decay, (1 + n) / (10 + n))
        averages, current = list(self.weights.values()), [p.detach() for p in model.parameters()]
        if self.sharded:
            averages, current = local_shards(averages), local_shards(current)
        torch._foreach_lerp_(averages, [p.float() for p in current], 1.0 - decay)

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Load saved averages (full tensors)."""
        for name, average in self.weights.items():
            average.copy_(shard_like(weights[name], average))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights inside the block, and its own weights after it."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)


def learning_rate(train: Train, iteration: int, length: int) -> float:
    """Return the learning rate of a training of ``length``: linear warm-up, then the schedule.

    It is constant, or falls to the share ``final`` of the peak: as a half cosine, as a line, or as a line over the last
    share ``decay`` (``wsd``: warmup, stable, decay; Hu et al. 2024, arXiv 2404.06395). ``until=plateau`` has the last
    fifth.
    """
    s = train.schedule
    rate = train.learning_rate * min(1.0, (iteration + 1) / max(1, s.warmup))
    if train.until == "plateau" or s.kind == "wsd":
        start = length * 4 // 5 if train.until == "plateau" else length - max(1, round(s.decay * length))
        return rate * (1.0 - (1.0 - s.final) * max(0, iteration - start) / (length - start))
    if s.kind == "constant":
        return rate
    done = min(1.0, max(0, iteration - s.warmup) / max(1, length - s.warmup))
    left = 1.0 - done if s.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return rate * (s.final + (1.0 - s.final) * left)


class Trainer:
    """Train a job in a run folder, from wherever the folder stands. ``run`` is the loop.

    Attributes:
        iteration: number of finished iterations.
    """

    def __init__(self, job: Job, folder: RunFolder, processes: Processes) -> None:
        self.job, self.model, self.train = job, job.model, job.train
        self.folder, self.processes = folder, processes
        self.stop, self.stopping = Stop(), False
        resumed = processes.on_main(lambda: checkpoint.latest_or_fail(folder.checkpoints))
        if resumed is not None:
            resumed.load_model(job.state)
        self.iteration = 0 if resumed is None else resumed.iteration
        self.alone: Any = copy.deepcopy(job.losses).cpu() if processes.shards and processes.is_main else None
        if processes.shards:
            processes.shard(job.losses, transformer_blocks(job.model))
        self.ema = EMA(job.model, self.train.ema, processes.shards)
        self.losses, self.optimizer = processes.prepare(job.losses, make_optimizer(job.model, self.train))
        if processes.is_main:
            folder.rewind(self.iteration)
        if resumed is not None:
            self._resume(resumed)
        job.tune()
        self.batches = Batches(
            job.split, job.seed, self.train.batch_size, self.train.accumulation, processes.rank, processes.world,
            processes.device, job.n_classes,
        )  # fmt: skip

    def run(self) -> None:
        """Train to the end. Each iteration is saved before it is validated: a failure there costs no training."""
        job = self.job
        stops = handled(self.stop.receive, self.train.save_on)
        with self.processes.together(), stops, job.reporting(self.iteration):
            if self.iteration:  # the last process may have ended between the two
                job.evaluate(Progress(self.iteration, job.length), self.averaged)
            while self.iteration < job.length:
                loss, norm, rate = self.step(self.batches.at(self.iteration))
                self.iteration += 1
                now = Progress(self.iteration, job.length)
                job.report(now, loss, norm, rate)
                if self.stopping or now.due(self.train.save_every):
                    self.save()
                if self.stopping and not now.ended:
                    number = self.stop.signal or signal.SIGTERM
                    raise Stopped(number) if self.processes.is_main else PeerFailed(128 + number)
                job.evaluate(now, self.averaged)
        self.batches.close()

    def step(self, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Take one optimiser step. Return this process's share of the loss, the gradient norm and the learning rate."""
        job, processes, length = self.job, self.processes, self.job.length
        done, rate = self.iteration / length, learning_rate(self.train, self.iteration, length)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.losses.train()
        tasks = [job.ask(self.losses, batch, self.iteration, done) for batch in batches]
        denominators, stop = sum(task.denominator for task in tasks), bool(self.stop.signal)
        denominator, stops = processes.all_reduce_sum(denominators, stop)
        self.stopping = stops > 0  # all processes or none
        total = torch.zeros((), device=processes.device)
        for micro, (batch, task) in enumerate(zip(batches, tasks, strict=True)):
            torch.manual_seed(derived_seed(job.seed, "dropout", self.iteration, processes.rank, micro))
            last = micro == len(batches) - 1
            with nullcontext() if last else processes.no_sync(self.losses):
                loss = job.loss(self.losses, batch, task, denominator, done)
                processes.accelerator.backward(loss * processes.world)  # data-parallel training averages gradients
            total += loss.detach()
        norm = processes.clip(self.losses, self.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model, self.iteration)
        return total, norm, rate

    @contextmanager
    def averaged(self) -> Iterator[nn.Module | None]:
        """Yield the unwrapped losses with the averaged weights on the main process; None on the others."""
        shards = self.processes.shards
        weights = self.processes.gather_full(self.model.state_dict() | self.ema.weights) if shards else {}
        if not self.processes.is_main:
            yield None
        elif self.alone is None:
            with self.ema.applied(self.model):
                yield self.processes.accelerator.unwrap_model(self.losses, keep_fp32_wrapper=True).eval()
        else:
            self.alone.to(self.processes.device).model.load_state_dict(weights)
            with self.processes.accelerator.autocast():
                yield self.alone.eval()
            self.alone.cpu()

    def save(self) -> None:
        """Write a checkpoint on the main process. Raise UserError if a weight or loss is not finite."""
        self.job.before_save()
        weights, ema = self.processes.gather_full([self.job.state.state_dict(), self.ema.weights])
        training: dict[str, Any] = {"optimizer": self.processes.gather_full(self.optimizer.state_dict())}
        if self.processes.accelerator.scaler is not None:
            training["scaler"] = self.processes.accelerator.scaler.state_dict()
        folder, keep = self.folder.checkpoints, self.train.keep
        self.processes.on_main(lambda: checkpoint.save(folder, self.iteration, weights, ema, training, keep))

    def _resume(self, found: checkpoint.Checkpoint) -> None:
        training = found.load_optimizer()
        if training is not None:
            load_optimizer(self.optimizer, training["optimizer"])
            if "scaler" in training and self.processes.accelerator.scaler is not None:
                self.processes.accelerator.scaler.load_state_dict(training["scaler"])
        self.ema.load(found.load_ema())
        if self.processes.is_main:
            logger.info(f"resuming {self.folder.path} after iteration {self.iteration}")
            if training is None:
                logger.info("note: an exported run has no moments of AdamW, which start at zero")

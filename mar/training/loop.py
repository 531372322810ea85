"""The training loop, for models and autoencoders: batch, loss, backward, step, EMA, log, save.

A ``Job`` says what is trained; a ``Trainer`` runs the loop, saves checkpoints and resumes.

B batch · L tokens
"""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from mar.config import Train
from mar.core.errors import PeerFailed, Stopped, UserError
from mar.core.noise import derived_seed, stream
from mar.core.processes import Processes, Stop
from mar.data.base import Split
from mar.model.model import Model
from mar.networks.base import Network
from mar.training import checkpoint
from mar.training.batches import Batch, Batches
from mar.training.blocks import recompute_blocks, transformer_blocks
from mar.training.monitor import Averaged, Monitor, Progress
from mar.training.objectives import Losses, Task, replace_with_model_samples
from mar.training.optimizer import EMA, learning_rate, load_optimizer, make_optimizer
from mar.training.parts import Parts
from mar.training.run_folder import RunFolder
from orderings import Grid, Plan


class Job:
    """Base class: weights, their loss and the reports of one training."""

    train: Train  # optimiser, schedule and intervals
    seed: int  # key of all random numbers
    split: Split  # the training examples
    model: nn.Module  # its parameters are trained and averaged
    losses: nn.Module  # one forward pass of the loss; a data-parallel wrapper goes around it
    state: nn.Module  # the module that checkpoints hold
    n_classes: int = 0  # number of classes that labels are checked against; 0: labels are not checked

    def tune(self) -> None:
        """Compile or otherwise change the model after it was loaded and wrapped."""

    def reporting(self, iteration: int) -> AbstractContextManager[None]:
        """Report between entering and leaving; ``iteration``: where the training starts."""
        return nullcontext()

    def length(self) -> int:
        """Return the iteration at which training ends, as far as it is known."""
        return self.train.iterations

    def report(self, progress: Progress, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        """Log if due.

        Args:
            loss: this process's share of the iteration's loss.
            norm: the gradient's, before clipping.
            rate: the learning rate.
        """
        raise NotImplementedError

    def evaluate(self, progress: Progress, averaged: Averaged) -> None:
        """Validate and sample with the averaged weights if due and not done."""

    def before_save(self) -> None:
        """Raise UserError if the state must not be saved."""

    def begin_step(self, iteration: int) -> None:
        """Prepare the model for an iteration."""

    def end_step(self, iteration: int) -> None:
        """Update what the optimiser does not train."""

    def ask(self, losses: nn.Module, batch: Batch, number: int, done: float) -> Any:
        """Return the task of a batch, with its ``denominator``.

        Args:
            number: key of the batch's random numbers: the iteration.
            done: fraction 0..1 of the training.
        """
        raise NotImplementedError

    def loss(self, losses: nn.Module, batch: Batch, task: Any, denominator: float, done: float) -> torch.Tensor:
        """Return this batch's share of the loss: a scalar."""
        raise NotImplementedError


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
        self.ema = EMA(job.model, self.train.ema)
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
        with self.stop.listening(), job.reporting(self.iteration):
            if self.iteration:  # the last process may have ended between the two
                job.evaluate(Progress(self.iteration, job.length()), self.averaged)
            while self.iteration < job.length():
                loss, norm = self.step(self.batches.at(self.iteration))
                self.iteration += 1
                now = Progress(self.iteration, job.length())
                job.report(now, loss, norm, self.optimizer.param_groups[0]["lr"])
                if self.stopping or now.due(self.train.save_every):
                    self.save()
                if self.stopping and not now.ended:
                    number = self.stop.signal or signal.SIGTERM
                    raise Stopped(number) if self.processes.is_main else PeerFailed(128 + number)
                job.evaluate(now, self.averaged)
        self.batches.close()

    def step(self, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one optimiser step. Return this process's share of the loss, and the gradient norm."""
        job, processes, done = self.job, self.processes, self.iteration / self.train.iterations
        rate = learning_rate(self.train, self.iteration, job.length())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.losses.train()
        job.begin_step(self.iteration)
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
                processes.backward(loss * processes.world)  # data-parallel training averages gradients
            total += loss.detach()
        norm = processes.clip(self.losses, self.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        job.end_step(self.iteration)
        self.ema.update(self.model, self.iteration)
        return total, norm

    @contextmanager
    def averaged(self) -> Iterator[nn.Module | None]:
        """Yield the unwrapped losses with the averaged weights on the main process; None on the others."""
        shards = self.processes.shards
        weights = self.processes.gather_full(self.model.state_dict() | self.ema.weights) if shards else {}
        if not self.processes.is_main:
            yield None
            return
        if self.alone is None:
            with self.ema.applied(self.model):
                yield self.processes.unwrap(self.losses).eval()
            return
        self.alone.to(self.processes.device).model.load_state_dict(weights)
        with self.processes.autocast():
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
        load_optimizer(self.optimizer, training["optimizer"])
        if "scaler" in training and self.processes.accelerator.scaler is not None:
            self.processes.accelerator.scaler.load_state_dict(training["scaler"])
        self.ema.load(found.load_ema())
        if self.processes.is_main:
            print(f"resuming {self.folder.path} after iteration {self.iteration}")


class ModelJob(Job):
    """A model of a recipe: plans, tasks, losses, and a monitor."""

    model: Model

    def __init__(self, parts: Parts, folder: RunFolder, processes: Processes, compiles: bool = False) -> None:
        self.parts, self.processes, self.compiles = parts, processes, compiles
        self.train, self.seed, self.split = parts.recipe.train, parts.recipe.seed, parts.data.train
        self.model = self.state = parts.model.to(processes.device)
        self.losses, self.n_classes = Losses(self.model, parts.objective), self.model.n_classes
        self.grid = Grid(self.model.tokenizer.shape)
        self.monitor = Monitor(parts, parts.data, folder, processes, self._evaluate)

    def tune(self) -> None:
        if self.train.checkpoint_activations:
            recompute_blocks(self.model)
        if self.compiles:
            self.model.compile_parts()

    def reporting(self, iteration: int) -> AbstractContextManager[None]:
        return self.monitor.running(iteration)

    def length(self) -> int:
        return self.train.length(self.monitor.curve)

    def report(self, progress: Progress, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        self.monitor.report(progress, loss, norm, rate)

    def evaluate(self, progress: Progress, averaged: Averaged) -> None:
        self.monitor.evaluate(progress, averaged)

    def before_save(self) -> None:
        self.monitor.flush()

    def begin_step(self, iteration: int) -> None:
        """Sample the network's random structure, if it has one."""
        self.iteration = iteration
        network = self.model.network
        if type(network).resample is not Network.resample:
            network.resample(stream(self.seed, "structure", torch.tensor([iteration])))

    def ask(self, losses: nn.Module, batch: Batch, number: int, done: float) -> Task:
        """Return a task for each row: a plan, and how much of it is known."""
        noise = batch.noise.at("order").to("cpu")
        shared = self.model.network.shares_plan and losses.training
        if shared:  # one order for all rows of all processes; validation has one for each row
            noise = stream(self.seed, "order", torch.tensor([number]))
        plan = Plan.sample(self.parts.ordering.at(done), self.parts.partition, self.grid, len(noise.example_N), noise)
        if shared:
            plan = plan.rows(torch.zeros_like(batch.position_B))
        tokenizer = self.model.tokenizer
        if tokenizer.end is not None:
            plan = plan.shortened(tokenizer.absent(tokenizer.encode(batch.x)).cpu())
        iteration = stream(self.seed, "mask-ratio", torch.tensor([number]))
        return self.parts.objective.task(plan, batch.position_B, iteration, self.model.network.one_pass)

    def loss(self, losses: nn.Module, batch: Batch, task: Task, denominator: float, done: float) -> torch.Tensor:
        return self.loss_B(losses, batch, task, done).sum() / denominator

    def loss_B(self, losses: nn.Module, batch: Batch, task: Task, done: float) -> torch.Tensor:
        """Return each row's loss. In training, labels are dropped and known tokens may be replaced."""
        drop = self.train.label_drop if losses.training else 0
        of_drop, of_tokens, of_head = map(batch.noise.at, ("label-drop", "dequantise", "head"))
        drop_B = of_drop.uniform(1)[:, 0] < drop
        token = self.model.tokenizer.encode(batch.x, of_tokens)
        task = task.to(token.device)
        scheduled, seen = self.train.scheduled_sampling, []
        if scheduled.probability and losses.training and (rate := scheduled.at(done)):
            with self.processes.autocast():
                streams = batch.noise.at("scheduled")
                seen = [replace_with_model_samples(self.model, token, batch.label_B, drop_B, task, rate, streams)]
            self.begin_step(self.iteration)  # the samples were drawn with the network's first connectivity
        return losses(token, batch.label_B, drop_B, task, of_head, *seen)

    def _evaluate(self, losses: nn.Module, batch: Batch, number: int, done: float) -> tuple[torch.Tensor, float]:
        task = self.ask(losses, batch, number, done)
        return self.loss_B(losses, batch, task, done), task.denominator


def check(parts: Parts, processes: Processes) -> None:
    """Raise UserError if these processes cannot train the recipe together."""
    train, shares = parts.recipe.train, processes.world * parts.recipe.train.accumulation
    if train.batch_size < shares:
        raise UserError(
            f"train.batch_size={train.batch_size} leaves some of {shares} micro-batches (processes × accumulation) "
            "empty: use fewer processes or a larger batch"
        )
    if train.until == "plateau":
        if not len(parts.data.validation):
            raise UserError("train.until=plateau reads the validation loss, and this data has no validation split")
        if parts.ordering.at(0.0) != parts.ordering.at(1.0) or train.scheduled_sampling.probability:
            raise UserError(
                "train.until=plateau ends at an unknown iteration: annealed orders and train.scheduled_sampling want a "
                "length, set train.until=iterations"
            )
    if not train.scheduled_sampling.probability:
        return
    if parts.model.policy is not None:
        raise UserError("train.scheduled_sampling wants orders that are drawn, not a learned one")
    if processes.shards:
        raise UserError("train.scheduled_sampling draws with a whole model: use train.parallel=ddp")

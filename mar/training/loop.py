"""The training loop: batch, loss, backward, step, EMA, log, save.

B batch · L tokens
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from mar.config import Recipe, Train
from mar.data.base import Data
from mar.distributed import Processes
from mar.errors import Stopped, UserError
from mar.model import Model
from mar.noise import derived_seed, stream
from mar.training import checkpoint
from mar.training.batches import Batch, Batches
from mar.training.ema import EMA
from mar.training.learned import LearnedOrder
from mar.training.monitor import Monitor
from mar.training.objective import MaskRatio, Objective, Task
from mar.training.run_folder import RunFolder
from mar.training.scheduled_sampling import with_own_draws
from orderings import Grid, Ordering, Partition, Plan


def learning_rate(train: Train, iteration: int) -> float:
    """A pure function of examples seen: linear warm-up, then constant or a half cosine."""
    s = train.schedule
    warm = min(1.0, (iteration + 1) / max(1, s.warmup))
    if s.kind == "constant":
        return train.learning_rate * warm
    done = min(1.0, max(0, iteration - s.warmup) / max(1, train.iterations - s.warmup))
    return train.learning_rate * warm * (s.final + (1.0 - s.final) * 0.5 * (1.0 + math.cos(math.pi * done)))


def make_optimizer(model: Model, train: Train) -> torch.optim.Optimizer:
    """AdamW; biases, norms and single vectors are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=train.betas, fused=True)


class Trainer:
    """Everything that one training run holds. ``run`` is the loop."""

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        data: Data,
        ordering: Ordering,
        partition: Partition,
        mask_ratio: MaskRatio,
        folder: RunFolder,
        processes: Processes,
    ) -> None:
        train, share = recipe.train, processes.world * recipe.train.accumulation
        if train.batch_size % share:
            raise UserError(
                f"train.batch_size={train.batch_size} does not divide by {share} (processes × accumulation)"
            )
        if train.scheduled_sampling.probability and model.policy is not None:
            raise UserError("train.scheduled_sampling wants orders that are drawn, not a learned one")
        self.recipe, self.train, self.model = recipe, train, model.to(processes.device)
        self.ordering, self.partition, self.mask_ratio = ordering, partition, mask_ratio
        self.folder, self.processes = folder, processes
        self.grid = Grid(model.tokenizer.shape)
        self.iteration = 0
        self.started = time.monotonic()
        self._resume_model()
        self.ema = EMA(model, train.ema)
        objective = Objective(model) if model.policy is None else LearnedOrder(model)
        self.objective, self.optimizer = processes.prepare(objective, make_optimizer(model, train))
        self._resume_rest()
        if train.compile:
            model.compile_parts()
        self.batches = Batches(
            data.train, recipe.seed, train.batch_size, train.accumulation, processes.rank, processes.world,
            processes.device,
        )  # fmt: skip
        self.monitor = Monitor(self, data)

    def run(self) -> None:
        """Train to ``train.iterations``, from wherever the folder stands."""
        with self._stoppable() as stop, self.monitor.progress() as progress:
            while self.iteration < self.train.iterations:
                loss, norm = self.step(self.batches.at(self.iteration))
                self.iteration += 1
                progress(self.iteration, loss)
                self.monitor.after(self.iteration, loss, norm)
                ended = self.iteration == self.train.iterations
                if ended or stop or self.iteration % self.train.save_every == 0:
                    self.save()
                if stop and not ended:
                    raise Stopped(stop[0])
        self.batches.close()

    def step(self, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step. Returns this process's share of the loss, and the gradient norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.train, self.iteration)
        self.objective.train()
        self.model.network.resample(stream(self.recipe.seed, "structure", torch.tensor([self.iteration])))
        tasks = [self.task(batch, self.iteration) for batch in batches]
        denominator = self.processes.sum(sum(task.denominator for task in tasks))
        total = torch.zeros((), device=self.processes.device)
        for micro, (batch, task) in enumerate(zip(batches, tasks, strict=True)):
            torch.manual_seed(derived_seed(self.recipe.seed, "dropout", self.iteration, self.processes.rank, micro))
            last = micro == len(batches) - 1
            with nullcontext() if last else self.processes.no_sync(self.objective):
                loss = self.loss(batch, task).sum() / denominator
                self.processes.backward(loss * self.processes.world)  # data-parallel training averages gradients
            total += loss.detach()
        norm = self.processes.clip(self.objective, self.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model, self.iteration)
        return total, norm

    def task(self, batch: Batch, number: int) -> Task:
        """What each row of a batch is asked: a plan, and how much of it is known. ``number`` keys the batch's draw."""
        ordering = self.ordering.at(self.iteration / self.train.iterations)
        noise = batch.noise.at("order").to("cpu")
        shared = self.model.network.shares_plan and self.objective.training
        if shared:  # one order for all rows of all processes; validation has one for each row
            noise = stream(self.recipe.seed, "order", torch.tensor([number]))
        plan = Plan.draw(ordering, self.partition, self.grid, len(noise), noise)
        if shared:
            plan = plan.rows(torch.zeros_like(batch.position_B))
        iteration = stream(self.recipe.seed, "mask-ratio", torch.tensor([number]))
        return self.mask_ratio.task(plan, batch.position_B, iteration, self.model.network.one_pass)

    def loss(self, batch: Batch, task: Task) -> torch.Tensor:
        """loss_B of a micro-batch. Labels are dropped in training only."""
        drop_B = batch.noise.at("label-drop").uniform(1)[:, 0] < (
            self.train.label_drop if self.objective.training else 0
        )
        token = self.model.tokenizer.encode(batch.x, batch.noise.at("dequantise"))
        task = task.to(token.device)
        rate = self.train.scheduled_sampling.at(self.iteration / self.train.iterations)
        own = []
        if rate and self.objective.training:
            with self.processes.autocast():
                streams = batch.noise.at("scheduled")
                own = [with_own_draws(self.model, token, batch.label_B, drop_B, task, rate, streams)]
        return self.objective(token, batch.label_B, drop_B, task, batch.noise.at("head"), *own)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block ``loss`` runs on this process only, without the wrapper that waits for the others."""
        wrapped, self.objective = self.objective, self.processes.unwrap(self.objective)
        try:
            yield
        finally:
            self.objective = wrapped

    def save(self) -> None:
        """A checkpoint, written by the first process; never one that holds weights that are not finite."""
        self.monitor.flush()
        if self.processes.is_main:
            training: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
            if self.processes.accelerator.scaler is not None:
                training["scaler"] = self.processes.accelerator.scaler.state_dict()
            checkpoint.save(
                self.folder.checkpoints, self.iteration, self.model, self.ema.weights, training, self.train.keep
            )
        self.processes.wait()

    def _resume_model(self) -> None:
        """Weights of the newest whole checkpoint, before the model is wrapped."""
        self.resumed, damaged = checkpoint.latest(self.folder.checkpoints)
        if self.processes.is_main:
            for line in damaged:
                print(line)
        if self.resumed is not None:
            self.resumed.load_model(self.model)
            self.iteration = self.resumed.iteration

    def _resume_rest(self) -> None:
        if self.resumed is None:
            return
        training = self.resumed.load_optimizer()
        self.optimizer.load_state_dict(training["optimizer"])
        if "scaler" in training and self.processes.accelerator.scaler is not None:
            self.processes.accelerator.scaler.load_state_dict(training["scaler"])
        self.ema.load(self.resumed.load_ema())
        if self.processes.is_main:
            self.folder.rewind(self.iteration)
            print(f"resuming {self.folder.path} after iteration {self.iteration}")

    @contextmanager
    def _stoppable(self) -> Iterator[list[int]]:
        """Collects Ctrl-C and SIGTERM: the iteration in progress ends and is saved. A second one ends at once."""
        received: list[int] = []

        def receive(number: int, frame: Any) -> None:
            if received:
                raise KeyboardInterrupt
            received.append(number)

        if self.processes.world > 1:  # the peers would wait for each other: resume from the last checkpoint instead
            yield received
            return
        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield received
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

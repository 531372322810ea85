"""The training loop: batch, loss, backward, step, EMA, log, save.

B batch · L tokens
"""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch

from mar.config import Recipe
from mar.core.errors import EndedElsewhere, Stopped, UserError
from mar.core.noise import derived_seed, stream
from mar.core.processes import Processes, Stop
from mar.data.base import Data
from mar.model.model import Model
from mar.training import checkpoint
from mar.training.batches import Batch, Batches
from mar.training.blocks import recompute_blocks, transformer_blocks
from mar.training.monitor import Monitor
from mar.training.objectives import LearnedOrder, MaskRatio, Objective, Task, with_own_draws
from mar.training.optimizer import EMA, learning_rate, load_optimizer, make_optimizer
from mar.training.run_folder import RunFolder
from orderings import Grid, Ordering, Partition, Plan


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
        self.recipe, self.train, self.model = recipe, recipe.train, model.to(processes.device)
        self.ordering, self.partition, self.mask_ratio = ordering, partition, mask_ratio
        self.folder, self.processes = folder, processes
        self.grid = Grid(model.tokenizer.shape)
        self.iteration = 0
        self.stop, self.stopping = Stop(), False
        self.started = time.monotonic()
        self._resume_model()
        objective = Objective(model) if model.policy is None else LearnedOrder(model)
        self.alone = copy.deepcopy(objective).cpu() if processes.shards and processes.is_main else None
        processes.shard(objective, transformer_blocks(model))
        self.ema = EMA(model, self.train.ema)
        self.objective, self.optimizer = processes.prepare(objective, make_optimizer(model, self.train))
        self._resume_rest()
        if self.train.checkpoint_activations:
            recompute_blocks(model)
        if self.train.compile:
            model.compile_parts()
        self.batches = Batches(
            data.train, recipe.seed, self.train.batch_size, self.train.accumulation, processes.rank, processes.world,
            processes.device, model.n_classes,
        )  # fmt: skip
        self.monitor = Monitor(self, data)

    def run(self) -> None:
        """Train to ``train.iterations``, from wherever the folder stands."""
        with self.stop.listening(), self.monitor.progress() as progress:
            while self.iteration < self.train.iterations:
                loss, norm = self.step(self.batches.at(self.iteration))
                self.iteration += 1
                progress(self.iteration, loss)
                self.monitor.after(self.iteration, loss, norm)
                ended = self.iteration == self.train.iterations
                if ended or self.stopping or self.iteration % self.train.save_every == 0:
                    self.save()
                if self.stopping and not ended:
                    number = self.stop.signal or signal.SIGTERM
                    raise Stopped(number) if self.processes.is_main else EndedElsewhere(128 + number)
        self.batches.close()

    def step(self, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step. Returns this process's share of the loss, and the gradient norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.train, self.iteration)
        self.objective.train()
        self._resample()
        tasks = [self.task(batch, self.iteration) for batch in batches]
        denominator, asked = self.processes.sums(sum(task.denominator for task in tasks), bool(self.stop.signal))
        self.stopping = asked > 0  # all processes or none
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

    def _resample(self) -> None:
        self.model.network.resample(stream(self.recipe.seed, "structure", torch.tensor([self.iteration])))

    def task(self, batch: Batch, number: int) -> Task:
        """What each row of a batch is asked: a plan, and how much of it is known. ``number`` keys the batch's draw."""
        ordering = self.ordering.at(self.iteration / self.train.iterations)
        noise = batch.noise.at("order").to("cpu")
        shared = self.model.network.shares_plan and self.objective.training
        if shared:  # one order for all rows of all processes; validation has one for each row
            noise = stream(self.recipe.seed, "order", torch.tensor([number]))
        plan = Plan.sample(ordering, self.partition, self.grid, len(noise), noise)
        if shared:
            plan = plan.rows(torch.zeros_like(batch.position_B))
        tokenizer = self.model.tokenizer
        if tokenizer.end is not None:
            plan = plan.shortened(tokenizer.absent(tokenizer.encode(batch.x)).cpu())
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
            self._resample()  # drawing was with the network's first connectivity
        return self.objective(token, batch.label_B, drop_B, task, batch.noise.at("head"), *own)

    @contextmanager
    def averaged(self) -> Iterator[Objective | None]:
        """The objective with the averaged weights, whole, on the first process; None on the others.

        Inside the block ``loss`` and ``task`` are its own: what trains has a wrapper that waits for all processes.
        """
        weights = self.processes.whole(self.model.state_dict() | self.ema.weights) if self.processes.shards else {}
        if not self.processes.is_main:
            yield None
            return
        trained, alone = self.objective, self.alone or self.processes.unwrap(self.objective)
        if self.alone is not None:
            self.alone.to(self.processes.device).model.load_state_dict(weights)
        try:
            self.objective = alone.eval()
            with self.processes.autocast() if self.alone else self.ema.applied(self.model):
                yield cast(Objective, alone)
        finally:
            self.objective = trained
            if self.alone is not None:
                self.alone.cpu()

    def save(self) -> None:
        """A checkpoint, written by the first process; never one that holds weights that are not finite."""
        self.monitor.flush()
        weights, ema = self.processes.whole([self.model.state_dict(), self.ema.weights])
        training: dict[str, Any] = {"optimizer": self.processes.whole(self.optimizer.state_dict())}
        if self.processes.accelerator.scaler is not None:
            training["scaler"] = self.processes.accelerator.scaler.state_dict()
        folder, keep = self.folder.checkpoints, self.train.keep
        self.processes.first(lambda: checkpoint.save(folder, self.iteration, weights, ema, training, keep))

    def _resume_model(self) -> None:
        """Weights of the newest whole checkpoint, before the model is wrapped."""
        self.resumed = self.processes.first(lambda: checkpoint.resumable(self.folder.checkpoints))
        if self.resumed is not None:
            self.resumed.load_model(self.model)
            self.iteration = self.resumed.iteration

    def _resume_rest(self) -> None:
        if self.processes.is_main:
            self.folder.rewind(self.iteration)
        if self.resumed is None:
            return
        training = self.resumed.load_optimizer()
        load_optimizer(self.optimizer, training["optimizer"])
        if "scaler" in training and self.processes.accelerator.scaler is not None:
            self.processes.accelerator.scaler.load_state_dict(training["scaler"])
        self.ema.load(self.resumed.load_ema())
        if self.processes.is_main:
            print(f"resuming {self.folder.path} after iteration {self.iteration}")


def check(recipe: Recipe, model: Model, processes: Processes) -> None:
    """Raises UserError for what these processes cannot train together."""
    train, shares = recipe.train, processes.world * recipe.train.accumulation
    if train.batch_size < shares:
        raise UserError(
            f"train.batch_size={train.batch_size} leaves some of {shares} micro-batches (processes × accumulation) "
            "empty: use fewer processes or a larger batch"
        )
    if not train.scheduled_sampling.probability:
        return
    if model.policy is not None:
        raise UserError("train.scheduled_sampling wants orders that are drawn, not a learned one")
    if processes.shards:
        raise UserError("train.scheduled_sampling draws with a whole model: use train.parallel=ddp")

"""What is trained (``Job``), and the training of a recipe's model: tasks and losses, log, validation and samples.

B batch · L tokens
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mar.config import Train
from mar.core.devices import double
from mar.core.errors import PeerFailed, UserError
from mar.core.log import logger
from mar.core.noise import Noise, stream
from mar.core.processes import Processes
from mar.core.progress import bar
from mar.core.signals import available_memory
from mar.core.tokens import Categories
from mar.data.base import Split, evenly_spaced
from mar.data.conditions import Conditioned
from mar.model.model import Model
from mar.model.plans import Plans
from mar.networks.base import Network
from mar.sampling.many import Settings, labels_of, sample_many
from mar.training import checkpoint
from mar.training.batches import Batch, labels_or_none
from mar.training.blocks import recompute_blocks
from mar.training.objectives import Losses, Task, replace_with_model_samples
from mar.training.optimizers import make_optimizer
from mar.training.parts import Parts
from mar.training.run_folder import RunFolder
from mar.training.trackers import Trackers, check_trackers, tracking
from orderings import Plan, PlanSpec

_AMPLE = 200  # times the memory of a forward pass: above every network, so that activations need no measurement
_VALIDATION = 2**32 - 1  # key of the validation tasks: the same at every iteration
FidOf = Callable[[torch.Tensor], float]  # images (N, C, H, W) in the data's levels -> their FID
Averaged = Callable[[], AbstractContextManager[Any]]  # losses with averaged weights on the main process, or None


@dataclass(frozen=True)
class Progress:
    """The training after an iteration."""

    iteration: int  # finished
    iterations: int  # in total, as far as it is known

    @property
    def ended(self) -> bool:
        return self.iteration == self.iterations

    def due(self, every: int) -> bool:
        """True in every ``every``-th iteration and at the end; never if ``every`` is 0."""
        return bool(every) and (self.iteration % every == 0 or self.ended)


class Job:
    """Base class: weights, their loss and the reports of one training."""

    train: Train  # optimiser, schedule and intervals
    seed: int  # key of all random numbers
    split: Split  # the training examples
    model: nn.Module  # its parameters are trained and averaged
    losses: nn.Module  # one forward pass of the loss; a data-parallel wrapper goes around it
    state: nn.Module  # the module that checkpoints hold
    length: int  # the iteration at which training ends, as far as it is known
    n_classes: int = 0  # labels are checked against; 0: they are not

    def tune(self) -> None:
        """Compile or otherwise change the model after it was loaded and wrapped."""

    def reporting(self, iteration: int) -> AbstractContextManager[None]:
        """Report between entering and leaving; ``iteration``: where the training starts."""
        return nullcontext()

    def report(self, progress: Progress, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        """Log if due: this process's share of the loss, the gradient norm before clipping, the learning rate."""
        raise NotImplementedError

    def evaluate(self, progress: Progress, averaged: Averaged) -> None:
        """Validate and sample with the averaged weights if due and not done."""

    def before_save(self) -> None:
        """Raise UserError if the state must not be saved."""

    def ask(self, losses: nn.Module, batch: Batch, number: int, done: float) -> Any:
        """Prepare the model for a batch and return its task, which has a ``denominator``. ``number`` keys its random
        numbers (the iteration), ``done`` is the fraction 0..1 of the training."""
        raise NotImplementedError

    def loss(self, losses: nn.Module, batch: Batch, task: Any, denominator: float, done: float) -> torch.Tensor:
        """Return this batch's share of the loss: a scalar. Update what the optimiser does not train."""
        raise NotImplementedError


def check(parts: Parts, processes: Processes) -> None:
    """Raise UserError if these processes cannot train the recipe together, or have no such optimizer."""
    train, shares = parts.recipe.train, processes.world * parts.recipe.train.accumulation
    if train.batch_size < shares:
        raise UserError(
            f"train.batch_size={train.batch_size} leaves some of {shares} micro-batches (processes × accumulation) "
            "empty: use fewer processes or a larger batch"
        )
    if processes.shards and train.optimizer.kind != "adamw":
        raise UserError(f"train.optimizer={train.optimizer.kind} updates whole weights: use train.parallel=ddp")
    make_optimizer(parts.model, train)
    check_trackers(train.trackers)
    if train.until == "plateau":
        if not len(parts.data.validation):
            raise UserError("train.until=plateau reads the validation loss, and this data has no validation split")
        if parts.ordering.at(0.0) != parts.ordering.at(1.0) or train.scheduled_sampling.probability:
            raise UserError(
                "train.until=plateau ends at an unknown iteration: annealed orders and train.scheduled_sampling want a "
                "length, set train.until=iterations"
            )
    if train.scheduled_sampling.probability:
        if parts.model.policy is not None:
            raise UserError("train.scheduled_sampling wants orders that are drawn, not a learned one")
        if processes.shards:
            raise UserError("train.scheduled_sampling draws with a whole model: use train.parallel=ddp")


def check_memory(parts: Parts, processes: Processes) -> None:
    """Raise UserError: training needs more memory than is free. Activations count on a CPU, scaled from three rows."""
    train, model, gpu = parts.recipe.train, parts.model, processes.device.type == "cuda"
    world = 1 if gpu else int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes that share this memory
    weights = 4 * model.n_parameters
    states = weights * (4 + (train.ema > 0))  # weights, gradients, two moments, averages
    states = states * world // (processes.world if processes.shards else 1)
    rows = math.ceil(train.batch_size / (processes.world * train.accumulation))
    free = torch.cuda.mem_get_info(processes.device)[0] if gpu else available_memory() + weights * world
    ample = _AMPLE * 4 * rows * model.network.row_floats(math.prod(model.tokenizer.shape)) * world
    counts = not (gpu or train.checkpoint_activations or model.policy is not None or states + ample < free)
    one, three = (_activation_bytes(parts, count) if counts else 0 for count in (1, 3))
    activations = (one + (three - one) * (rows - 1) // 2) * world
    if states + activations > free:
        raise UserError(
            f"training needs about {(states + activations) / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: "
            f"{states / 1e9:.1f} for weights, gradients, moments and averages of {model.n_parameters:,} parameters, "
            f"{activations / 1e9:.1f} for activations of {rows} rows. Choose a smaller network or batch, "
            "train.accumulation=N or train.checkpoint_activations=true. mar train --ignore-memory, or any command with "
            "MAR_IGNORE_MEMORY=1, starts all the same"
        )


def _activation_bytes(parts: Parts, rows: int) -> int:
    """Return the bytes that the loss of some rows keeps for its gradient, on random tokens."""
    model, grid, row, sizes = parts.model, parts.model.tokenizer.lattice, torch.arange(rows), dict[int, int]()
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    noise, kind = stream(0, "memory", row), model.tokenizer.token
    plan = Plan.sample(parts.ordering.at(0.0), parts.partition, grid, rows, noise)
    plan = plan.rows(torch.zeros_like(row)) if model.network.shares_plan else plan
    task = parts.objective.task(plan, row, noise, model.network.one_pass)
    width = 1 if isinstance(kind, Categories) else kind.width
    token = noise.normal(len(grid) * width).reshape(rows, len(grid), width)
    token = torch.zeros_like(token[..., 0], dtype=torch.long) if isinstance(kind, Categories) else token

    def pack(kept: torch.Tensor) -> torch.Tensor:
        sizes[kept.untyped_storage().data_ptr()] = kept.untyped_storage().nbytes()
        return kept

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        loss_B = Losses(model, parts.objective)(token, torch.zeros_like(row), row < 0, task, noise)
        total = sum(size for place, size in sizes.items() if place not in own)
    del loss_B
    return total


class ModelJob(Job):
    """Losses stay on the device until they are logged, so that reporting never waits for the device in between.

    Attributes:
        curve: (iteration, nats per token) of every validation.
        fids: iteration -> FID of generated images.
        pending: (iteration, loss, gradient norm, learning rate) that are not logged yet.
    """

    model: Model
    trackers: Trackers  # of the main process

    def __init__(
        self, parts: Parts, folder: RunFolder, processes: Processes, compiles: bool = False, fid: FidOf | None = None
    ) -> None:
        self.parts, self.folder, self.processes, self.compiles = parts, folder, processes, compiles
        self.train, self.seed, self.data = parts.recipe.train, parts.recipe.seed, parts.data
        self.split = self.data.train
        self.model = self.state = parts.model.to(processes.device)
        self.losses, self.n_classes = Losses(self.model, parts.objective), self.model.n_classes
        self.length = self.train.iterations
        self.grid = self.model.tokenizer.lattice
        self.final_ordering = parts.ordering.at(1.0)
        self.estimates_nll = self.model.head.loss_is_nll and parts.objective.estimates_nll(self.final_ordering)
        self.fid = fid
        self.curve: list[tuple[int, float]] = []
        self.fids: dict[int, float] = {}
        self.pending: list[tuple[int, torch.Tensor, torch.Tensor, float]] = []
        self.structure: Noise | None = None  # key of the network's random structure, in training
        self.lost: set[str] = set()  # reports that could not be written

    def tune(self) -> None:
        if self.train.checkpoint_activations:
            recompute_blocks(self.model)
        if self.compiles:
            self.model.compile_parts()

    # Plans, tasks and losses.

    def ask(self, losses: nn.Module, batch: Batch, number: int, done: float) -> Task:
        """Return a task for each row: a plan, and how much of it is known. Sample the network's random structure."""
        number_1 = torch.tensor([number])
        self.structure = Noise(self.seed, "structure", number_1) if losses.training else None
        self._resample()
        noise = batch.noise.at("order", device="cpu")
        shared = self.model.network.shares_plan and losses.training
        if shared:  # one order for all rows of all processes; validation has one for each row
            noise = Noise(self.seed, "order", number_1)
        plan = Plan.sample(self.parts.ordering.at(done), self.parts.partition, self.grid, len(noise.example_N), noise)
        if shared:
            plan = plan.rows(torch.zeros_like(batch.position_B))
        tokenizer = self.model.tokenizer
        if tokenizer.end is not None:
            plan = plan.shortened(tokenizer.absent(tokenizer.encode(batch.x)).cpu())
        iteration = Noise(self.seed, "mask-ratio", number_1)
        return self.parts.objective.task(plan, batch.position_B, iteration, self.model.network.one_pass)

    def _resample(self) -> None:
        """Sample the random structure of a network in training, if it has one."""
        network = self.model.network
        if self.structure is not None and type(network).resample is not Network.resample:
            network.resample(self.structure)

    def loss(self, losses: nn.Module, batch: Batch, task: Task, denominator: float, done: float) -> torch.Tensor:
        return self.loss_B(losses, batch, task, done).sum() / denominator

    def loss_B(self, losses: nn.Module, batch: Batch, task: Task, done: float) -> torch.Tensor:
        """Return each row's loss. In training, labels are dropped and known tokens may be replaced."""
        of_drop, of_tokens, of_head = batch.noise.split("label-drop", "dequantise", "head")
        drop_B = torch.zeros(len(batch.label_B), dtype=torch.bool, device=batch.label_B.device)
        if losses.training:
            drop_B = of_drop.uniform(1)[:, 0] < self.train.label_drop
        token = self.model.tokenizer.encode(batch.x, of_tokens)
        scheduled, seen = self.train.scheduled_sampling, []
        if scheduled.probability and losses.training and (rate := scheduled.at(done)):
            with self.processes.accelerator.autocast():
                streams = batch.noise.at("scheduled")
                seen = [replace_with_model_samples(self.model, token, batch.label_B, drop_B, task, rate, streams)]
            self._resample()  # the samples were drawn with the network's first connectivity
        return losses(token, batch.label_B, drop_B, task, of_head, *seen)

    # Reports.

    @contextmanager
    def reporting(self, iteration: int) -> Iterator[None]:
        """Show a progress bar on the main process: iterations, loss, validation, examples a second, time left."""
        self.curve = self.processes.on_main(self.folder.validations)
        self.fids = dict(self.processes.on_main(lambda: self.folder.logged("fid")))
        self.length = self.train.length(self.curve)
        self.started = self.clock = time.monotonic()
        self.clock_at = self.first = iteration
        if self.processes.is_main:
            data, device = self.data, self.processes.device
            size = f"{self.model.n_parameters:,} parameters, {len(data.train):,} examples of {data.name}"
            where = f"; samples in {self.folder.path}/samples" if self.train.sample_every else ""
            logger.info(f"{self.folder.path}: {size}, {self.processes.world} process(es) on {device}{where}")
            if not self.estimates_nll:
                logger.info("the loss of this recipe estimates no NLL: read it as a loss; mar score gives likelihoods")
            for note in data.notes.values():
                logger.info(f"note: {note}")
        with bar("training", self.processes.is_main) as self.bar, ExitStack() as stack:
            recipe = self.parts.recipe
            opened = tracking(self.train.trackers, self.folder.path, recipe.name, recipe.as_dict(), iteration)
            self.processes.on_main(lambda: setattr(self, "trackers", stack.enter_context(opened)))
            self.bar(iteration, self.length)
            yield

    def report(self, progress: Progress, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        if progress.due(10):
            shown = float(loss) * self.processes.world
            speed = (progress.iteration - self.first) * self.train.batch_size / (time.monotonic() - self.started)
            validated = f" val {self.curve[-1][1]:.3f}" if self.curve else ""
            text = f"loss {shown:.3f}{validated} {speed:.0f}/s"
            self.bar(progress.iteration, progress.iterations, text)
        self.pending.append((progress.iteration, loss, norm.detach(), rate))
        if progress.due(self.train.log_every):
            self.before_save()

    def before_save(self) -> None:
        """Log the losses since the last time. Raise UserError if one is not finite."""
        if not self.pending:
            return
        iterations, losses, norms, rates = zip(*self.pending, strict=True)
        self.pending, last = [], iterations[-1]
        losses = self.processes.sum_tensor(double(torch.stack(losses)))
        norms = double(torch.stack(norms)).to(losses.device)
        finite = losses.isfinite()
        if not self.processes.scales_loss:  # fp16 skips a step whose gradient overflowed; otherwise it is the end
            finite &= norms.isfinite()
        if not bool(finite.all()):  # on all processes
            if not self.processes.is_main:
                raise PeerFailed(2)
            good, _ = checkpoint.latest(self.folder.checkpoints)
            where = f"the last good checkpoint is {good.path}" if good else "there is no checkpoint yet"
            causes = "a learning rate too high, a warm-up too short, fp16 overflow, or data that are not finite"
            at = iterations[int((~finite).nonzero()[0, 0])]
            raise UserError(f"the loss is not finite at iteration {at}; {where}; likely causes: {causes}")
        now = time.monotonic()
        rate = (last - self.clock_at) * self.train.batch_size / max(now - self.clock, 1e-9)
        self.clock, self.clock_at = now, last
        self._log(
            last, loss_nats_per_token=float(losses.mean()), gradient_norm=float(norms.mean()), images_per_second=rate,
            learning_rate=rates[-1], seconds=now - self.started,
        )  # fmt: skip

    def evaluate(self, progress: Progress, averaged: Averaged) -> None:
        """Validate and sample if due, unless it was done before a kill."""
        validates = progress.due(self.train.validate_every) and len(self.data.validation)
        if validates and progress.iteration not in dict(self.curve):
            with averaged() as losses:
                nats = self.processes.on_main(lambda: self._validate(progress, losses))
            self.curve.append((progress.iteration, nats))
            self.length = self.train.length(self.curve)
            if self.length < progress.iterations and self.processes.is_main:
                logger.info(f"the validation loss is at a plateau: the rate decays until iteration {self.length:,}")
        shown = self.folder.path.glob(f"samples/training-{progress.iteration:08d}.*")
        if progress.due(self.train.sample_every) and not any(shown):
            with averaged() as losses:
                self.processes.on_main(lambda: self._sample(progress.iteration, losses.model))
        fid = self.fid
        if fid is not None and progress.due(self.train.fid_every) and progress.iteration not in self.fids:
            with averaged() as losses:
                self.fids[progress.iteration] = self.processes.on_main(lambda: self._fid(progress, losses, fid))

    @torch.no_grad()
    def _fid(self, progress: Progress, losses: Any, fid: FidOf) -> float:
        """Return the FID of the images that ``Run.sample`` draws along the training plan with the averaged weights."""
        n, model = self.train.fid_images, losses.model
        spec = PlanSpec(self.final_ordering, self.parts.partition)
        plans = Plans(spec, self.grid, self.folder.path, self.processes.device)
        settings = Settings(seed=self.seed, learned=plans.learned)
        found = fid(sample_many(model, self._labels(n), plans.sample, settings))
        self._log(progress.iteration, fid=found, fid_images=n)
        logger.info(f"iteration {progress.iteration:,} of {progress.iterations:,}: FID {found:.2f} of {n:,} images")
        if self.train.keep_best == "fid" and found < min(self.fids.values(), default=math.inf):
            self._keep(progress.iteration, model)
        return found

    def _labels(self, n: int) -> torch.Tensor:
        """Return the labels of n samples: all classes in turn, or the conditions of training examples."""
        if isinstance(self.split, Conditioned):
            condition_N = self.split.condition_N[evenly_spaced(len(self.split), n)]
            return condition_N[torch.arange(n) % len(condition_N)]
        return labels_of(self.model, None, n)

    def _keep(self, iteration: int, averaged: nn.Module) -> None:
        """Keep the averaged weights as the best."""
        weights = averaged.state_dict()
        named = {name: weights[name] for name, _ in averaged.named_parameters()}
        checkpoint.save(self.folder.best, iteration, weights, named, {}, keep=1)

    @torch.no_grad()
    def _validate(self, progress: Progress, losses: Any) -> float:
        """Return nats per token of held-out examples under the averaged weights, with the same noise every time."""
        held_out, examples = self.data.validation, self.train.validation_examples
        count = min(examples, len(held_out))
        repeats, done = max(1, examples // count), progress.iteration / progress.iterations
        x, label_B = held_out.batch(evenly_spaced(len(held_out), count))
        sums, denominator, device = [], 0.0, self.processes.device
        for repeat in range(repeats):
            number_B = torch.arange(count) + repeat * count
            noise = stream(self.seed, "validation", number_B, device)
            batch = Batch(x.to(device), labels_or_none(label_B, count).to(device), number_B, noise)
            task = self.ask(losses, batch, _VALIDATION, done)
            sums.append(self.loss_B(losses, batch, task, done))
            denominator += task.denominator
        per_image = (double(torch.stack(sums)) * count * repeats / denominator).mean(0)
        mean, error = float(per_image.mean()), float(per_image.std() / count**0.5) if count > 1 else float("nan")
        values = {"validation_nats_per_token": mean, "validation_standard_error": error}
        if self.estimates_nll and self.model.tokenizer.dimensions:
            values["validation_bits_per_dim"] = self.model.tokenizer.bits_per_dim(mean * len(self.grid))
        self._log(progress.iteration, **values)
        if self.processes.is_main and not sys.stderr.isatty():  # a terminal has the bar
            logger.info(
                f"iteration {progress.iteration:,} of {progress.iterations:,}: validation {mean:.4f} nats/token"
            )
        keeps = self.train.keep_best is True or (self.train.until == "plateau" and self.train.keep_best != "fid")
        if keeps and mean < min((nats for _, nats in self.curve), default=float("inf")):
            self._keep(progress.iteration, losses.model)
        return mean

    def _sample(self, iteration: int, model: Any) -> None:
        """Save a few samples of the averaged weights."""
        from mar.sampling.output import preview, quick_samples

        spec = self.data.spec
        n = 40 if spec.modality == "image" else 8
        x = quick_samples(model, self.final_ordering, self.parts.partition, self.seed, self._labels(n))
        with self._spared("samples"):
            shown = preview(x, spec, self.folder.path / "samples" / f"training-{iteration:08d}")
            self.trackers.samples(shown, iteration)

    def _log(self, iteration: int, **values: float) -> None:
        if not self.processes.is_main:
            return
        with self._spared("metrics.jsonl"):
            self.folder.log(iteration=iteration, **values)
        self.trackers.log(iteration, **values)

    @contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """Go on training if a report cannot be written; only checkpoints decide whether the run can go on."""
        try:
            yield
        except OSError as error:
            if what not in self.lost:
                logger.info(f"note: {what} of {self.folder.path} cannot be written ({error}); training goes on")
            self.lost.add(what)

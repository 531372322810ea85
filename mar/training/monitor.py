"""Reports of a run in training: losses, validation, samples, and the first loss that is not finite.

B batch
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mar.core.errors import PeerFailed, UserError
from mar.core.noise import stream
from mar.core.processes import Processes
from mar.core.progress import bar
from mar.data.base import Data, evenly_spaced
from mar.training import checkpoint
from mar.training.batches import Batch
from mar.training.parts import Parts
from mar.training.run_folder import RunFolder
from orderings import Grid

_VALIDATION = 2**32 - 1  # key of the validation tasks: the same at every iteration

LossesOf = Callable[[nn.Module, Batch, int, float], tuple[torch.Tensor, float]]
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
        """True every so many iterations and at the end; never if ``every`` is 0."""
        return bool(every) and (self.iteration % every == 0 or self.ended)


class Monitor:
    """Losses stay on the device until they are logged, so that reporting never waits for the device in between.

    Args:
        losses_of: returns (loss_B, denominator) of losses, a batch, the key of its tasks, and the fraction of training.
    """

    def __init__(self, parts: Parts, data: Data, folder: RunFolder, processes: Processes, losses_of: LossesOf) -> None:
        self.parts, self.data, self.folder, self.processes, self.losses_of = parts, data, folder, processes, losses_of
        self.train, self.model = parts.recipe.train, parts.model
        self.pending: list[tuple[int, torch.Tensor, torch.Tensor, float]] = []  # iteration, loss, norm, rate
        self.curve: list[tuple[int, float]] = []  # iteration, validation nats per token
        ordering = parts.ordering.at(1.0)
        self.estimates_nll = self.model.head.loss_is_nll and parts.objective.estimates_nll(ordering)
        self.lost: set[str] = set()
        self.board: Any = None

    @contextmanager
    def running(self, iteration: int) -> Iterator[None]:
        """Show a progress bar on the main process: iterations, loss, time left."""
        self.curve = self.processes.on_main(self.folder.validations)
        self.started = self.clock = time.monotonic()
        self.clock_at = iteration
        if self.processes.is_main:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=iteration + 1)
            size = f"{self.model.n_parameters:,} parameters, {len(self.data.train):,} examples of {self.data.name}"
            print(f"{self.folder.path}: {size}, {self.processes.world} process(es) on {self.processes.device}")
            if not self.estimates_nll:
                print("the loss of this recipe estimates no NLL: read it as a loss; mar score gives likelihoods")
            for note in self.data.notes.values():
                print(f"note: {note}")
        with bar("training", self.processes.is_main) as self.bar:
            self.bar(iteration, self.train.length(self.curve))
            yield

    def report(self, progress: Progress, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        """Log if due."""
        if progress.due(10):
            shown = float(loss) * self.processes.world
            self.bar(progress.iteration, progress.iterations, f"loss {shown:.4f}")
        self.pending.append((progress.iteration, loss, norm.detach(), rate))
        if progress.due(self.train.log_every):
            self.flush()

    def evaluate(self, progress: Progress, averaged: Averaged) -> None:
        """Validate and sample if due, unless it was done before a kill."""
        validates = progress.due(self.train.validate_every) and len(self.data.validation)
        if validates and progress.iteration not in dict(self.curve):
            with averaged() as losses:
                nats = self.processes.on_main(lambda: self._validate(progress, losses))
            self.curve.append((progress.iteration, nats))
            length = self.train.length(self.curve)
            if length < progress.iterations and self.processes.is_main:
                print(f"the validation loss is at a plateau: the learning rate decays until iteration {length:,}")
        shown = self.folder.path.glob(f"samples/training-{progress.iteration:08d}.*")
        if progress.due(self.train.sample_every) and not any(shown):
            with averaged() as losses:
                self.processes.on_main(lambda: self._sample(progress.iteration, losses.model))

    def flush(self) -> None:
        """Log the losses since the last time.

        Raises:
            UserError: a loss is not finite.
        """
        if not self.pending:
            return
        iterations, losses, norms, rates = zip(*self.pending, strict=True)
        self.pending, last = [], iterations[-1]
        losses = self.processes.sum_tensor(torch.stack(losses).double())
        norms = torch.stack(norms).double().to(losses.device)
        finite = losses.isfinite()
        if not self.processes.scales_loss:  # fp16 skips a step whose gradient overflowed; otherwise it is the end
            finite &= norms.isfinite()
        if not bool(finite.all()):  # on all processes
            if not self.processes.is_main:
                raise PeerFailed(2)
            raise UserError(self._not_finite(iterations[int((~finite).nonzero()[0, 0])]))
        seconds = max(time.monotonic() - self.clock, 1e-9)
        rate = (last - self.clock_at) * self.train.batch_size / seconds
        self.clock, self.clock_at = time.monotonic(), last
        self._log(
            last, loss_nats_per_token=float(losses.mean()), gradient_norm=float(norms.mean()),
            images_per_second=rate, learning_rate=rates[-1], seconds=time.monotonic() - self.started,
        )  # fmt: skip

    @torch.no_grad()
    def _validate(self, progress: Progress, losses: Any) -> float:
        """Return nats per token of held-out examples under the averaged weights, with the same noise every time."""
        count = min(self.train.validation_examples, len(self.data.validation))
        repeats = max(1, self.train.validation_examples // count)
        done = progress.iteration / progress.iterations
        found = [self.losses_of(losses, self._validation_batch(count, k), _VALIDATION, done) for k in range(repeats)]
        sums, denominator = torch.stack([loss_B for loss_B, _ in found]), sum(share for _, share in found)
        row_nats = sums.double() * len(sums[0]) * repeats / denominator
        per_image = row_nats.mean(0)
        mean, error = float(per_image.mean()), float(per_image.std() / count**0.5) if count > 1 else float("nan")
        values = {"validation_nats_per_token": mean, "validation_standard_error": error}
        tokenizer = self.model.tokenizer
        if self.estimates_nll and tokenizer.dimensions:
            values["validation_bits_per_dim"] = tokenizer.bits_per_dim(mean * len(Grid(tokenizer.shape)))
        self._log(progress.iteration, **values)
        keeps = self.train.keep_best or self.train.until == "plateau"
        if keeps and mean < min((nats for _, nats in self.curve), default=float("inf")):
            weights = losses.model.state_dict()
            averaged = {name: weights[name] for name, _ in losses.model.named_parameters()}
            checkpoint.save(self.folder.best, progress.iteration, weights, averaged, {}, keep=1)
        return mean

    def _validation_batch(self, count: int, repeat: int) -> Batch:
        x, label_B = self.data.validation.batch(evenly_spaced(len(self.data.validation), count))
        device, number_B = self.processes.device, torch.arange(count) + repeat * count
        label_B = torch.full((count,), -1) if label_B is None else label_B.long()
        noise = stream(self.parts.recipe.seed, "validation", number_B, device)
        return Batch(x.to(device), label_B.to(device), number_B, noise)

    def _sample(self, iteration: int, model: Any) -> None:
        """Save a few samples of the averaged weights."""
        from mar.sampling.output import preview, quick_samples

        n = 40 if self.data.spec.modality == "image" else 8
        x = quick_samples(model, self.parts.ordering.at(1.0), self.parts.partition, self.parts.recipe.seed, n)
        with self._spared("samples"):
            preview(x, self.data.spec, self.folder.path / "samples" / f"training-{iteration:08d}")

    def _log(self, iteration: int, **values: float) -> None:
        if not self.processes.is_main:
            return
        with self._spared("metrics.jsonl"):
            self.folder.log(iteration=iteration, **values)
        with self._spared("the TensorBoard events"):
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)
            self.board.flush()

    @contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """Go on training if a report cannot be written; only checkpoints decide whether the run can go on."""
        try:
            yield
        except OSError as error:
            if what not in self.lost:
                print(f"note: {what} of {self.folder.path} cannot be written ({error}); training goes on")
            self.lost.add(what)

    def _not_finite(self, iteration: int) -> str:
        good, _ = checkpoint.latest(self.folder.checkpoints)
        where = f"the last good checkpoint is {good.path}" if good else "there is no checkpoint yet"
        causes = "a learning rate too high, a warm-up too short, fp16 overflow, or data that are not finite"
        return f"the loss is not finite at iteration {iteration}; {where}; likely causes: {causes}"

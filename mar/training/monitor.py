"""What a run reports while it trains: losses, validation, samples, and the first loss that is not finite.

B batch
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mar.core.errors import PeerFailed, UserError
from mar.core.noise import stream
from mar.data.base import Data, spread
from mar.training import checkpoint
from mar.training.batches import Batch

if TYPE_CHECKING:
    from mar.training.loop import Trainer


_VALIDATION = 2**32 - 1  # keys the draw of the validation tasks: the same at every iteration


class Monitor:
    """Losses stay on the device until they are logged, so that reporting never waits for it in between."""

    def __init__(self, trainer: Trainer, data: Data) -> None:
        self.trainer, self.data = trainer, data
        self.pending: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.clock, self.clock_at = time.monotonic(), trainer.iteration
        ordering = trainer.ordering.at(1.0)
        self.estimates_nll = trainer.model.head.loss_is_nll and trainer.mask_ratio.estimates_nll(ordering)
        validated = (line.get("validation_nats_per_token") for line in trainer.folder.history())
        self.best = min((nats for nats in validated if nats is not None), default=float("inf"))
        self.lost: set[str] = set()
        self.board = None
        if trainer.processes.is_main:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(trainer.folder.path / "tensorboard"), purge_step=trainer.iteration + 1)

    @contextmanager
    def progress(self) -> Iterator[Callable[[int, torch.Tensor], None]]:
        """A bar on the first process: iterations, loss, time left."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        trainer = self.trainer
        if trainer.processes.is_main:
            size = f"{trainer.model.n_parameters:,} parameters, {len(self.data.train):,} examples of {self.data.name}"
            print(f"{trainer.folder.path}: {size}, {trainer.processes.world} process(es) on {trainer.processes.device}")
            if not self.estimates_nll:
                print("the loss of this recipe estimates no NLL: read it as a loss; mar score gives likelihoods")
            for note in self.data.notes.values():
                print(f"note: {note}")
        with Progress(*columns, disable=not trainer.processes.is_main) as bar:
            task = bar.add_task("", total=trainer.train.iterations, completed=trainer.iteration, loss="")

            def advance(iteration: int, loss: torch.Tensor) -> None:
                if iteration % 10 == 0 or iteration == trainer.train.iterations:
                    bar.update(task, completed=iteration, loss=f"loss {float(loss) * trainer.processes.world:.4f}")

            yield advance

    def after(self, iteration: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Log, validate and sample when it is time."""
        train = self.trainer.train
        self.pending.append(loss)
        self.norms.append(norm)
        if iteration % train.log_every == 0 or iteration == train.iterations:
            self.flush()
        if train.validate_every and (iteration % train.validate_every == 0 or iteration == train.iterations):
            self.validate(iteration)
        if train.sample_every and (iteration % train.sample_every == 0 or iteration == train.iterations):
            self.sample(iteration)

    def flush(self) -> None:
        """Log the losses since the last time.

        Raises:
            UserError: one of them is not finite.
        """
        if not self.pending:
            return
        trainer = self.trainer
        losses = trainer.processes.sum_tensor(torch.stack(self.pending).double())
        iteration, first = trainer.iteration, trainer.iteration - len(self.pending)
        norms = torch.stack([n.detach().double() for n in self.norms]).to(losses.device)
        finite = losses.isfinite()
        if not trainer.processes.scales_loss:  # fp16 skips a step whose gradient overflowed; otherwise it is the end
            finite &= norms.isfinite()
        norm = float(norms.mean())
        self.pending, self.norms = [], []
        if not bool(finite.all()):  # on all processes
            if not trainer.processes.is_main:
                raise PeerFailed(2)
            raise UserError(self._not_finite(first + int((~finite).nonzero()[0, 0]) + 1))
        seconds = max(time.monotonic() - self.clock, 1e-9)
        rate = (iteration - self.clock_at) * trainer.train.batch_size / seconds
        self.clock, self.clock_at = time.monotonic(), iteration
        self._log(
            iteration, loss_nats_per_token=float(losses.mean()), gradient_norm=norm, images_per_second=rate,
            learning_rate=trainer.optimizer.param_groups[0]["lr"],
            seconds=time.monotonic() - trainer.started,
        )  # fmt: skip

    def validate(self, iteration: int) -> None:
        """The objective on held-out examples with the averaged weights and, every time, the same noise."""
        if len(self.data.validation):
            with self.trainer.averaged() as objective:
                self.trainer.processes.on_main(lambda: self._validate(iteration, objective))

    @torch.no_grad()
    def _validate(self, iteration: int, objective: Any) -> None:
        trainer = self.trainer
        count = min(trainer.train.validation_examples, len(self.data.validation))
        repeats = max(1, trainer.train.validation_examples // count)
        sums, denominator = [], 0.0
        for repeat in range(repeats):
            batch = self._validation_batch(count, repeat)
            task = trainer.task(batch, _VALIDATION)
            sums.append(trainer.loss(batch, task))
            denominator += task.denominator
        row_nats = torch.stack(sums).double() * len(sums[0]) * repeats / denominator
        per_image = row_nats.mean(0)
        mean, error = float(per_image.mean()), float(per_image.std() / count**0.5) if count > 1 else float("nan")
        values = {"validation_nats_per_token": mean, "validation_standard_error": error}
        if self.estimates_nll and trainer.model.tokenizer.dimensions:
            values["validation_bits_per_dim"] = trainer.model.tokenizer.bits_per_dim(mean * len(trainer.grid))
        self._log(iteration, **values)
        if trainer.train.keep_best and mean < self.best:
            weights = objective.model.state_dict()
            averaged = {name: weights[name] for name in trainer.ema.weights}
            checkpoint.save(trainer.folder.best, iteration, weights, averaged, {}, keep=1)
        self.best = min(self.best, mean)

    def _validation_batch(self, count: int, repeat: int) -> Batch:
        x, label_B = self.data.validation.batch(spread(len(self.data.validation), count))
        device, number_B = self.trainer.processes.device, torch.arange(count) + repeat * count
        label_B = torch.full((count,), -1) if label_B is None else label_B.long()
        noise = stream(self.trainer.recipe.seed, "validation", number_B, device)
        return Batch(x.to(device), label_B.to(device), number_B, noise)

    def sample(self, iteration: int) -> None:
        """A few samples with the averaged weights."""
        with self.trainer.averaged() as objective:
            self.trainer.processes.on_main(lambda: self._sample(iteration, objective))

    def _sample(self, iteration: int, objective: Any) -> None:
        from mar.sampling.output import preview, quick_samples

        trainer = self.trainer
        plan = trainer.ordering.at(1.0), trainer.partition
        n = 40 if self.data.spec.modality == "image" else 8
        x = quick_samples(objective.model, *plan, trainer.recipe.seed, n)
        with self._spared("samples"):
            preview(x, self.data.spec, trainer.folder.path / "samples" / f"training-{iteration:08d}")

    def _log(self, iteration: int, **values: float) -> None:
        if not self.trainer.processes.is_main:
            return
        with self._spared("metrics.jsonl"):
            self.trainer.folder.log(iteration=iteration, **values)
        with self._spared("the TensorBoard events"):
            assert self.board is not None
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)
            self.board.flush()

    @contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """A report that cannot be written costs the report alone: whether the run can go on, its checkpoints decide."""
        try:
            yield
        except OSError as error:
            if what not in self.lost:
                print(f"note: {what} of {self.trainer.folder.path} cannot be written ({error}); training goes on")
            self.lost.add(what)

    def _not_finite(self, iteration: int) -> str:
        good, _ = checkpoint.latest(self.trainer.folder.checkpoints)
        where = f"the last good checkpoint is {good.path}" if good else "there is no checkpoint yet"
        causes = "a learning rate too high, a warm-up too short, fp16 overflow, or data that are not finite"
        return f"the loss is not finite at iteration {iteration}; {where}; likely causes: {causes}"

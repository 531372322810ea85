"""Training a small autoencoder: batch, loss, backward, step, codebook, EMA, log, save. The same command goes on.

B batch · N positions of a batch · D latent channels
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from mar.config import Schedule, Train
from mar.core.errors import PeerFailed, Stopped, UserError
from mar.core.files import TOKENIZER, environment, write_atomic
from mar.core.noise import derived_seed, stream
from mar.core.processes import Precision, Processes, Stop
from mar.core.records import plain, refuse_other
from mar.data.base import Data
from mar.tokenizers.vq import perplexity
from mar.training import checkpoint
from mar.training.autoencoder import Architecture, AutoencoderObjective, MovingCodebook
from mar.training.batches import Batches
from mar.training.optimizer import EMA, learning_rate, load_optimizer, make_optimizer
from mar.training.run_folder import RunFolder, moved_schedules

_MAY_CHANGE = {"iterations", "log_every", "save_every"}


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Everything that decides what comes out."""

    data: dict[str, Any]  # the recipe's section
    fingerprint: str
    architecture: Architecture = field(default_factory=Architecture)
    power: Literal[1, 2] = 1  # of the reconstruction's error
    weight: float | None = None  # of the second term; None: 1e-6 of kl, 0.25 of vq
    iterations: int = 2000
    batch_size: int = 128
    learning_rate: float = 1e-3
    ema: float = 0.999
    precision: Precision = "auto"
    seed: int = 0
    log_every: int = 20
    save_every: int = 500

    @property
    def second_weight(self) -> float:
        if self.weight is not None:
            return self.weight
        return 1e-6 if self.architecture.kind == "kl" else 0.25

    @property
    def train(self) -> Train:
        """As the optimiser reads it."""
        schedule = Schedule(kind="cosine", warmup=min(100, self.iterations // 10))
        return Train(
            iterations=self.iterations, batch_size=self.batch_size, learning_rate=self.learning_rate,
            schedule=schedule, weight_decay=0.0, ema=self.ema, clip=1.0,
        )  # fmt: skip


def began_with(path: Path, recipe: AutoencoderRecipe) -> Precision:
    """The recipe's precision; of ``auto`` that of the training in ``path``, if it has begun, so that it goes on so."""
    file = path / TOKENIZER
    if recipe.precision != "auto" or not file.is_file():
        return recipe.precision
    content = json.loads(file.read_text())
    return content["environment"].get("precision", content["recipe"]["precision"])  # older ones have the recipe's alone


class AutoencoderTrainer:
    """Everything that one training holds. ``run`` is the loop; ``folder/autoencoder`` is what it leaves."""

    def __init__(self, recipe: AutoencoderRecipe, data: Data, path: Path, processes: Processes) -> None:
        self.recipe, self.train, self.data, self.processes = recipe, recipe.train, data, processes
        self.folder, self.iteration, self.stop = RunFolder(path), 0, Stop()
        kind = recipe.architecture.kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(recipe.seed, "initialisation"))
            self.model = recipe.architecture.build(data.spec).to(processes.device)
        self.codebook = MovingCodebook(self.model.quantize.embedding.weight) if kind == "vq" else None
        self.ema = EMA(self.model, recipe.ema)
        objective = AutoencoderObjective(self.model, kind, recipe.power, recipe.second_weight)
        self.objective, self.optimizer = processes.prepare(objective, make_optimizer(self.model, self.train))
        self._resume()
        self.batches = Batches(
            data.train, recipe.seed, recipe.batch_size, 1, processes.rank, processes.world, processes.device
        )
        self.pending: list[torch.Tensor] = []

    def run(self, progress: Callable[[int, int], None]) -> Path:
        """Train to the end from wherever the folder stands, and write the averaged model as a diffusers folder."""
        with self.stop.listening():
            while self.iteration < self.recipe.iterations:
                self.pending.append(self.step())
                self.iteration += 1
                progress(self.iteration, self.recipe.iterations)
                ended = self.iteration == self.recipe.iterations
                if ended or self.iteration % self.recipe.log_every == 0:
                    self.log()
                stopping = self.processes.all_reduce_sum(bool(self.stop.signal))[0] > 0  # all processes or none
                if ended or stopping or self.iteration % self.recipe.save_every == 0:
                    self.save()
                if stopping and not ended:
                    number = self.stop.signal or signal.SIGTERM
                    raise Stopped(number) if self.processes.is_main else PeerFailed(128 + number)
        self.batches.close()
        final = self.folder.path / "autoencoder"
        if self.processes.is_main:
            with self.ema.applied(self.model):
                write_atomic(final, self.model.save_pretrained)
        self.processes.wait()
        return final

    def step(self) -> torch.Tensor:
        """One optimiser step. Returns (loss, mean square error, second term, perplexity of the batch)."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.train, self.iteration)
        (batch,) = self.batches.at(self.iteration)
        y = batch.x.float() * (2.0 / (self.data.spec.levels - 1)) - 1.0
        loss, *terms = self.objective(y, batch.noise.at("posterior"))
        self.processes.backward(loss)
        self.processes.clip(self.objective, self.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        used = torch.zeros((), device=loss.device)
        if self.codebook is not None:
            z_ND, index_N = terms[2:]
            noise = stream(self.recipe.seed, "codebook", torch.tensor([self.iteration]), loss.device)
            self.codebook.update(z_ND, index_N, noise, self.processes)
            used = perplexity(index_N, len(self.codebook.entries))
        self.ema.update(self.model, self.iteration)
        return torch.stack([loss.detach(), *terms[:2], used]).detach()

    def log(self) -> None:
        """The means since the last time. Raises UserError: the loss is not finite."""
        means = self.processes.sum_tensor(torch.stack(self.pending).double().mean(0)) / self.processes.world
        self.pending = []
        self.processes.on_main(lambda: self._log(*means.tolist()))

    def _log(self, loss: float, square: float, second: float, used: float) -> None:
        if not math.isfinite(loss):
            raise UserError(f"the loss is not finite before iteration {self.iteration}: lower --learning-rate")
        name, of_codebook = "kl_nats_per_value", {}
        if self.codebook is not None:
            name, of_codebook = "commitment", {"batch_perplexity": used}
        self.folder.log(
            iteration=self.iteration, loss=loss, psnr_db=10.0 * math.log10(4.0 / square), **{name: second},
            **of_codebook, learning_rate=self.optimizer.param_groups[0]["lr"],
        )  # fmt: skip

    def save(self) -> None:
        """Written by the first process.

        Raises:
            UserError: the weights are not finite, or cannot be written; the checkpoints before are as they were.
        """
        self.processes.on_main(self._save)

    def _save(self) -> None:
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise UserError(f"the weights are not finite after iteration {self.iteration}: lower --learning-rate")
        training = {"optimizer": self.optimizer.state_dict()}
        weights, keep = self._state().state_dict(), self.train.keep
        checkpoint.save(self.folder.checkpoints, self.iteration, weights, self.ema.weights, training, keep)

    def _state(self) -> torch.nn.Module:
        """What a checkpoint holds: the model, and the averages behind its codebook."""
        parts = {"model": self.model}
        if self.codebook is not None:
            parts["codebook"] = self.codebook
        return torch.nn.ModuleDict(parts)

    def _resume(self) -> None:
        found = self.processes.on_main(lambda: self._start())
        if found is None:
            return
        found.load_model(self._state())
        load_optimizer(self.optimizer, found.load_optimizer()["optimizer"])
        self.ema.load(found.load_ema())
        self.iteration = found.iteration

    def _start(self) -> checkpoint.Checkpoint | None:
        """The first process's: the folder, the same recipe as before, and the checkpoint to go on from.

        Raises:
            UserError: not for so many processes, or the folder holds a tokenizer of other settings or a longer one.
        """
        batch_size, world = self.recipe.batch_size, self.processes.world
        if batch_size % world:
            raise UserError(f"batch size {batch_size} does not divide by {world} processes")
        file, wanted = self.folder.path / TOKENIZER, plain(asdict(self.recipe))
        if file.is_file():
            there = json.loads(file.read_text())["recipe"]
            settled = {"precision"} if self.recipe.precision == "auto" else set()
            refuse_other(self.folder.path, "a tokenizer of other settings", there, wanted, _MAY_CHANGE | settled)
            before = replace(self.recipe, iterations=there["iterations"]).train
            checkpoint.check_length(self.folder.checkpoints, before.iterations, self.train.iterations)
            for note in moved_schedules(before, self.train):
                print(f"note: {note}")
        computes = {"precision": self.processes.precision, "processes": world}
        write_atomic(file, json.dumps({"recipe": wanted, "environment": environment() | computes}, indent=1))
        found = checkpoint.resumable(self.folder.checkpoints)
        if found is not None:
            self.folder.rewind(found.iteration)
            print(f"resuming {self.folder.path} after iteration {found.iteration}")
        return found

"""Small autoencoders: architecture, losses (reconstruction and KL or commitment; no adversary, no perceptual network),
codebook, and their training.

B batch · C, H, W channels, rows, columns of an image · N positions of a batch · V entries · D latent channels
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import nn

from mar.config import Schedule, Train
from mar.core.devices import double
from mar.core.errors import UserError
from mar.core.files import TOKENIZER, environment, write_atomic
from mar.core.log import logger
from mar.core.noise import Noise, derived_seed, stream
from mar.core.processes import Precision, Processes
from mar.core.readers import read_json
from mar.core.records import plain, refuse_other
from mar.core.spec import DataSpec
from mar.data.base import Data
from mar.tokenizers.autoencoder import latent_size
from mar.tokenizers.vq import perplexity
from mar.training import checkpoint
from mar.training.batches import Batch
from mar.training.job import Job, Progress
from mar.training.loop import Trainer
from mar.training.run_folder import RunFolder, schedule_changes
from mar.training.trackers import Trackers, check_trackers, tracking

_MAY_CHANGE = {"iterations", "log_every", "save_every", "data.path", "data.workers"}
_SETTINGS = "the settings of a tokenizer's run"
_DECAY = 0.99
_DEAD = 0.05  # of an even share: an entry used less is put on a vector of the batch


class MovingCodebook(nn.Module):
    """Updates ``entries`` in place: the moving averages of the vectors assigned to each (van den Oord et al. 2017,
    appendix A.1). Unused entries move to vectors of the batch (Dhariwal et al. 2020, section 3.1), at first all."""

    count_V: torch.Tensor
    total_VD: torch.Tensor

    def __init__(self, entries: nn.Parameter) -> None:
        super().__init__()
        self._entries = (entries.requires_grad_(False),)  # the model's: neither saved nor moved twice
        self.register_buffer("count_V", torch.zeros_like(entries[:, 0]))
        self.register_buffer("total_VD", torch.zeros_like(entries))

    @property
    def entries(self) -> torch.Tensor:
        return self._entries[0]

    @torch.no_grad()
    def update(self, z_ND: torch.Tensor, index_N: torch.Tensor, noise: Noise, processes: Processes) -> None:
        """Update with one batch. ``noise`` (one stream, the same on every process) picks vectors for unused entries."""
        size = len(self.entries)
        pick_V = (noise.uniform(size)[0] * len(z_ND)).long()
        spare_VD = z_ND[pick_V] * float(processes.is_main)  # the first process's, once summed
        count_V1 = torch.zeros_like(self.count_V).index_add_(0, index_N, torch.ones_like(z_ND[:, 0]))[:, None]
        total_VD = torch.zeros_like(self.total_VD).index_add_(0, index_N, z_ND)
        summed = processes.sum_tensor(torch.cat([count_V1, total_VD, spare_VD], 1))
        count_V1, total_VD, spare_VD = summed.split([1, *2 * [z_ND.shape[1]]], 1)
        count_V = count_V1[:, 0]
        share = float(count_V.sum()) / size
        self.count_V.lerp_(count_V, 1.0 - _DECAY)
        self.total_VD.lerp_(total_VD, 1.0 - _DECAY)
        dead_V = self.count_V < _DEAD * share
        self.count_V[dead_V] = share
        self.total_VD[dead_V] = spare_VD[dead_V] * share
        self.entries.copy_(self.total_VD / self.count_V[:, None])


@dataclass(frozen=True)
class Architecture:
    """Architecture of diffusers' ``AutoencoderKL`` or ``VQModel``."""

    kind: Literal["kl", "vq"] = "kl"
    channels: tuple[int, ...] = (32, 64, 64)  # of each level; each after the first halves rows and columns
    blocks: int = 1  # a level
    latent: int = 4  # channels of the latents
    codebook: int = 512  # entries (vq)

    def __post_init__(self) -> None:
        if self.kind not in ("kl", "vq"):
            raise UserError(f"--kind is kl or vq, not {self.kind!r}")
        if not self.channels or min(*self.channels, self.blocks, self.latent) < 1 or self.codebook < 2:
            raise UserError("channels, blocks and latent channels are at least 1, codebook entries at least 2")

    def check(self, spec: DataSpec) -> None:
        """Raise UserError if the data are not images, or cannot be halved so often."""
        if spec.latents is not None or spec.modality != "image" or not 2 <= spec.levels <= 256:
            raise UserError(f"an autoencoder is trained on images, not on examples of shape {spec.shape}")
        latent_size(spec.shape[1:], 2 ** (len(self.channels) - 1))

    def build(self, spec: DataSpec) -> Any:
        """Return an untrained model. Raises UserError as ``check``."""
        from mar.core import torchvision  # noqa: F401, I001 - before diffusers
        from diffusers import AutoencoderKL, VQModel

        self.check(spec)
        levels, colours = len(self.channels), spec.shape[0]
        cls: Any = VQModel if self.kind == "vq" else AutoencoderKL
        own = {"num_vq_embeddings": self.codebook} if self.kind == "vq" else {}
        return cls(
            in_channels=colours, out_channels=colours, down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels, block_out_channels=self.channels,
            layers_per_block=self.blocks, latent_channels=self.latent, norm_num_groups=math.gcd(32, *self.channels),
            sample_size=spec.shape[1], scaling_factor=1.0, **own,
        )  # fmt: skip


class AutoencoderObjective(nn.Module):
    """The loss: mean |x − x̂| or (x − x̂)² over the values of an image in [-1, 1], plus ``weight`` times

    - kl: KL(posterior ‖ N(0, 1)) in nats per value of the image (Rombach et al. 2022 use 1e-6);
    - vq: the commitment mean (z − e)², e the nearest entry, held still (van den Oord et al. 2017, eq. 3).
    """

    def __init__(self, model: nn.Module, kind: Literal["kl", "vq"], power: Literal[1, 2], weight: float) -> None:
        super().__init__()
        self.model: Any = model
        self.kind, self.power, self.weight = kind, power, weight

    def forward(self, y: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, ...]:
        """y (B, C, H, W) in [-1, 1] -> loss, mean square error, second term; of vq also z_ND and index_N."""
        decoded, second, *assigned = self._kl(y, noise) if self.kind == "kl" else self._vq(y)
        error = (decoded.float() - y).abs()
        return (error**self.power).mean() + self.weight * second, error.detach().square().mean(), second, *assigned

    def _kl(self, y: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, ...]:
        moments = self.model.encode(y).latent_dist
        mean, log_variance = moments.mean.float(), moments.logvar.float()
        z = mean + (0.5 * log_variance).exp() * noise.normal(mean[0].numel()).reshape(mean.shape)
        nats_B = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).flatten(1).sum(1)
        return self.model.decode(z).sample, nats_B.mean() / y[0].numel()

    def _vq(self, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = self.model.encode(y).latents.float()
        entries_VD = self.model.quantize.embedding.weight
        z_ND = z.movedim(1, -1).flatten(0, -2)
        index_N = torch.cdist(z_ND.detach(), entries_VD).argmin(1)
        entry = entries_VD[index_N].unflatten(0, (len(z), *z.shape[2:])).movedim(-1, 1)
        straight = z + (entry - z).detach()
        decoded = self.model.decoder(self.model.post_quant_conv(straight))
        return decoded, (z - entry).square().mean(), z_ND.detach(), index_N


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Settings that determine the trained autoencoder."""

    data: dict[str, Any]  # the recipe's section
    fingerprint: str
    architecture: Architecture = Architecture()
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
    def train(self) -> Train:
        """The settings as the loop reads them."""
        schedule = Schedule(kind="cosine", warmup=min(100, self.iterations // 10))
        return Train(
            iterations=self.iterations, batch_size=self.batch_size, learning_rate=self.learning_rate,
            schedule=schedule, weight_decay=0.0, ema=self.ema, clip=1.0, log_every=self.log_every,
            save_every=self.save_every,
        )  # fmt: skip


def original_precision(path: Path, recipe: AutoencoderRecipe) -> Precision:
    """Return the recipe's precision; ``auto`` is replaced by the precision that training in ``path`` began with."""
    if recipe.precision != "auto" or not (path / TOKENIZER).is_file():
        return recipe.precision
    content = read_json(path / TOKENIZER, _SETTINGS)
    return content["environment"].get("precision", content["recipe"]["precision"])  # older ones have the recipe's alone


class AutoencoderJob(Job):
    """An autoencoder of a recipe, with its codebook and its log."""

    trackers: Trackers  # of the main process

    def __init__(
        self, recipe: AutoencoderRecipe, data: Data, folder: RunFolder, processes: Processes,
        progress: Callable[[int, int], None], trackers: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.names = trackers
        self.recipe, self.folder, self.processes, self.progress = recipe, folder, processes, progress
        self.train, self.seed, self.split, self.levels = recipe.train, recipe.seed, data.train, data.spec.levels
        self.length, kind = recipe.iterations, recipe.architecture.kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(recipe.seed, "initialisation"))
            self.model: Any = recipe.architecture.build(data.spec).to(processes.device)
        self.codebook = MovingCodebook(self.model.quantize.embedding.weight) if kind == "vq" else None
        self.state = nn.ModuleDict({"model": self.model} | ({"codebook": self.codebook} if self.codebook else {}))
        weight = {"kl": 1e-6, "vq": 0.25}[kind] if recipe.weight is None else recipe.weight
        self.losses = AutoencoderObjective(self.model, kind, recipe.power, weight)
        self.pending: list[torch.Tensor] = []  # loss, square error, second term and perplexity of each batch

    def ask(self, losses: nn.Module, batch: Batch, number: int, done: float) -> Any:
        return SimpleNamespace(denominator=len(batch.x), number=number)

    def loss(self, losses: nn.Module, batch: Batch, task: Any, denominator: float, done: float) -> torch.Tensor:
        y = batch.x.float() * (2.0 / (self.levels - 1)) - 1.0
        loss, square, second, *assigned = losses(y, batch.noise.at("posterior"))
        used = torch.zeros((), device=loss.device)
        if self.codebook is not None:  # its entries have no gradient
            z_ND, index_N = assigned
            noise = stream(self.seed, "codebook", torch.tensor([task.number]), loss.device)
            self.codebook.update(z_ND, index_N, noise, self.processes)
            used = perplexity(index_N, len(self.codebook.entries))
        self.pending.append(torch.stack([loss.detach(), square, second.detach(), used]))
        return loss * (task.denominator / denominator)

    @contextmanager
    def reporting(self, iteration: int) -> Iterator[None]:
        path, settings = self.folder.path, plain(asdict(self.recipe))
        with ExitStack() as stack:
            opened = tracking(self.names, path, path.name, settings, iteration)
            self.processes.on_main(lambda: setattr(self, "trackers", stack.enter_context(opened)))
            yield

    def report(self, progress: Progress, loss: torch.Tensor, norm: torch.Tensor, rate: float) -> None:
        """Log the means since the last time. Raises UserError: the loss is not finite."""
        self.progress(progress.iteration, progress.iterations)
        if progress.due(self.train.log_every):
            total = self.processes.sum_tensor(double(torch.stack(self.pending)).mean(0))
            self.pending = []
            means = (total / self.processes.world).tolist()
            self.processes.on_main(lambda: self._log(progress.iteration, rate, *means))

    def _log(self, iteration: int, rate: float, loss: float, square: float, second: float, used: float) -> None:
        if not math.isfinite(loss):
            raise UserError(f"the loss is not finite before iteration {iteration}: lower --learning-rate")
        terms = {"kl_nats_per_value": second}
        if self.codebook is not None:
            terms = {"commitment": second, "batch_perplexity": used}
        terms = {"loss": loss, "psnr_db": 10.0 * math.log10(4.0 / square), **terms}
        self.folder.log(iteration=iteration, **terms, learning_rate=rate)
        self.trackers.log(iteration, **terms, learning_rate=rate)

    def before_save(self) -> None:
        def check() -> None:
            if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
                raise UserError("the weights are not finite: lower --learning-rate")

        self.processes.on_main(check)


def train_autoencoder(
    recipe: AutoencoderRecipe, data: Data, path: Path, processes: Processes, progress: Callable[[int, int], None],
    trackers: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Train to the end from wherever the folder stands, and write the averaged model as a diffusers folder.

    ``trackers``: as ``train.trackers`` of a recipe.

    Raises:
        UserError: the recipe does not fit these processes, or the folder holds a tokenizer of other settings.
    """
    check_trackers(trackers, "--tracker")
    folder, final = RunFolder(path), path / "autoencoder"
    processes.on_main(lambda: _start(recipe, folder, processes))
    job = AutoencoderJob(recipe, data, folder, processes, progress, trackers)
    trainer = Trainer(job, folder, processes)
    trainer.run()
    if processes.is_main:
        with trainer.ema.applied(job.model):
            write_atomic(final, job.model.save_pretrained)
    processes.wait()
    return final


def _start(recipe: AutoencoderRecipe, folder: RunFolder, processes: Processes) -> None:
    if recipe.batch_size % processes.world:
        raise UserError(f"batch size {recipe.batch_size} does not divide by {processes.world} processes")
    file, wanted = folder.path / TOKENIZER, plain(asdict(recipe))
    if file.is_file():
        there = read_json(file, _SETTINGS)["recipe"]
        settled = {"precision"} if recipe.precision == "auto" else set()
        refuse_other(folder.path, "a tokenizer of other settings", there, wanted, _MAY_CHANGE | settled)
        before = replace(recipe, iterations=there["iterations"]).train
        checkpoint.check_length(folder.checkpoints, before.iterations, recipe.iterations)
        for note in schedule_changes(before, recipe.train):
            logger.info(f"note: {note}")
    computes = {"precision": processes.precision, "processes": processes.world}
    write_atomic(file, json.dumps({"recipe": wanted, "environment": environment() | computes}, indent=1))

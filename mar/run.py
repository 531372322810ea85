"""Runs from Python: five lines do what the command line does.

    run = mar.load("runs/digits")
    result = run.nll(plan="spiral/cosine:16")
    images = run.sample(64, plan="hilbert", guidance=2.0)

L tokens · N images · K AR steps
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mar import build
from mar.config import Recipe
from mar.data.base import Data
from mar.distributed import Processes
from mar.errors import UserError
from mar.heads.base import sampling_options
from mar.likelihood.score import Likelihood, score
from mar.model import Model
from mar.noise import Noise
from mar.order_search.learned import score_learned
from mar.sampling.guidance import Guidance
from mar.sampling.many import Settings, sample_many
from mar.training import checkpoint
from mar.training.loop import Trainer
from mar.training.run_folder import RunFolder
from orderings import Grid, Ordering, Partition, Plan, describe, parse_plan
from orderings.optimal import resolve_optimal

PlanLike = str | Plan | tuple[Ordering, Partition]
Progress = Callable[[int, int], None]


class Run:
    """A run folder with its model loaded, in evaluation mode.

    Args:
        path: the run folder.
        ema: the averaged weights, or the last ones.
        device: default: a GPU if there is one.

    Raises:
        UserError: not a run folder, no checkpoint yet, or weights that disagree with the recipe.
    """

    def __init__(self, path: str | Path, ema: bool = True, device: str | None = None) -> None:
        self.folder, self.ema = RunFolder(path), ema
        self.recipe: Recipe = self.folder.recipe()
        newest, _ = checkpoint.latest(self.folder.checkpoints)
        if newest is None:
            raise UserError(f"{path} has no checkpoint yet: train it with the command that started it")
        self.checkpoint = newest
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model: Model = build.model(self.recipe, self.data)
        self.checkpoint.load_model(self.model, ema)
        self.model.to(self.device).eval().requires_grad_(False)
        self.grid = Grid(self.model.tokenizer.shape)

    @cached_property
    def data(self) -> Data:
        return build.data(self.recipe)

    @property
    def training_plan(self) -> str:
        """The plan of the recipe, as short text."""
        return describe(build.ordering(self.recipe), build.partition(self.recipe))

    def nll(
        self,
        images: torch.Tensor | None = None,
        plan: PlanLike | None = None,
        labels: torch.Tensor | None = None,
        split: str = "test",
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Likelihood:
        """Likelihood along a plan of images (N, C, H, W) in the data set's levels, or of a split's first ``limit``.

        ``options`` are those of ``mar.likelihood.score.score``: kind, budget.
        """
        if images is None:
            source = self.data.split(split)
            count = len(source) if limit is None else min(limit, len(source))
            images, labels = source.batch(torch.arange(count))
        plan = self.training_plan if plan is None else plan
        if self._learned(plan):
            return score_learned(
                self.model, images, labels, _text(plan), seed, warnings=self._warnings(_text(plan)), progress=progress,
                **options,
            )  # fmt: skip
        return score(
            self.model, images, labels, lambda noise: self._draw(plan, noise), _text(plan), seed,
            warnings=self._warnings(_text(plan)), progress=progress, **options,
        )  # fmt: skip

    def sample(
        self,
        n: int,
        plan: PlanLike | None = None,
        labels: torch.Tensor | None = None,
        guidance: float | Guidance = 1.0,
        temperature: float = 1.0,
        seed: int = 0,
        batch_size: int = 256,
        adaptive: str | None = None,
        given: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        progress: Progress | None = None,
        on_step: Any = None,
        **head_options: Any,
    ) -> torch.Tensor:
        """N images (N, C, H, W) in the data set's levels; image k is the same for any n and batch size.

        Args:
            labels: (N,) classes; None: all in turn.
            guidance: a scale, with the linear schedule, or a Guidance.
            adaptive, given, mask: see ``mar.sampling.many.Settings``.
            head_options: the head's sampling options (top_k, solver, steps, …).
        """
        plan = self.training_plan if plan is None else plan
        guidance = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
        if guidance.active and not self.model.n_classes:
            raise UserError("guidance needs a class-conditional model: this run has no classes")
        settings = Settings(guidance, temperature, seed, adaptive, given, mask, self._learned(plan))
        with sampling_options(self.model.head, head_options):
            return sample_many(
                self.model, self._labels(labels, n), lambda noise, given_BL: self._draw(plan, noise, given_BL),
                settings, batch_size, on_step, progress,
            )  # fmt: skip

    def frames(self, n: int, plan: PlanLike | None = None, **options: Any) -> list[torch.Tensor]:
        """The generation of ``sample(n, plan, …)`` after each step: K of (N, C, H, W)."""
        shown: list[torch.Tensor] = []

        def keep(step: int, token: torch.Tensor, target_BL: torch.Tensor) -> None:
            shown.append(self.model.tokenizer.decode(token).cpu())

        if (labels := options.get("labels")) is not None and len(labels) > 1:
            options["labels"] = labels[:n]
        self.sample(n, plan, batch_size=n, on_step=keep, **options)
        return shown

    def _warnings(self, plan: str) -> tuple[str, ...]:
        """What to know before quoting a likelihood of this run along ``plan``."""
        said = list(build.mask_ratio(self.recipe).warnings())
        if not build.ordering(self.recipe).at(1.0).random and plan != self.training_plan:
            said.append(f"trained along {self.training_plan} alone: the conditionals of {plan} were never trained")
        if self.model.policy is not None and plan != self.training_plan:
            said.append(f"trained along the orders of its policy: where {plan} goes elsewhere, it was trained little")
        if self.checkpoint.iteration < self.recipe.train.iterations:
            said.append(f"an unfinished run: {self.checkpoint.iteration} of {self.recipe.train.iterations} iterations")
        return (*said, *self.data.notes.values())

    def _draw(self, plan: PlanLike, noise: Noise, given_BL: torch.Tensor | None = None) -> Plan:
        """Plans for the rows of ``noise``; the rows of a Plan are examples 0, 1, …"""
        if isinstance(plan, Plan):
            return plan.rows(noise.example_N.to(plan.step_BL.device)).to(self.device)
        ordering, partition = parse_plan(plan) if isinstance(plan, str) else plan
        partition = resolve_optimal(partition, describe(ordering), self.folder.path)
        given_BL = None if given_BL is None else given_BL.cpu()
        return Plan.draw(ordering, partition, self.grid, len(noise), noise.to("cpu"), given_BL).to(self.device)

    def _learned(self, plan: PlanLike) -> bool:
        """Whether the model's policy chooses the order of ``plan``.

        Raises:
            UserError: this run has no policy.
        """
        ordering = None if isinstance(plan, Plan) else (parse_plan(plan) if isinstance(plan, str) else plan)[0]
        if ordering is None or not ordering.learned:
            return False
        if self.model.policy is None:
            raise UserError(f"{self.folder.path} has no learned order: train one with ordering=learned")
        return True

    def _labels(self, labels: torch.Tensor | None, n: int) -> torch.Tensor:
        if not self.model.n_classes:
            if labels is not None:
                raise UserError("this run has no classes: it was trained without labels")
            return torch.full((n,), -1)
        if labels is None:
            return torch.arange(n) % self.model.n_classes
        outside = labels[(labels < 0) | (labels >= self.model.n_classes)]
        if len(outside):
            last = self.model.n_classes - 1
            raise UserError(f"class {int(outside[0])} is out of range: this run has classes 0..{last}")
        if len(labels) not in (1, n):
            raise UserError(f"{len(labels)} classes for {n} images: give one, or one for each")
        return labels.expand(n)


def load(path: str | Path, ema: bool = True, device: str | None = None) -> Run:
    """The run in a folder, ready to sample and score."""
    return Run(path, ema, device)


def train(recipe: Recipe, path: str | Path, processes: Processes | None = None) -> None:
    """Train ``recipe`` in the folder ``path``, or go on where it stands.

    Raises:
        UserError: the recipe is impossible, or the folder belongs to another run or another process.
    """
    recipe, folder = build.resolve(recipe), RunFolder(path)
    data = build.data(recipe)
    model = build.model(recipe, data)
    processes = processes or Processes(recipe.train.precision)
    with folder.locked(processes.is_main):
        if processes.is_main:
            folder.start(recipe)
        processes.wait()
        model.tokenizer.fit(_batches(data))
        parts = build.ordering(recipe), build.partition(recipe), build.mask_ratio(recipe)
        Trainer(recipe, model, data, *parts, folder, processes).run()


def _batches(data: Data, limit: int = 10_000) -> Iterable[torch.Tensor]:
    """The first examples of the training split, for what a tokenizer measures."""
    for index in torch.arange(min(limit, len(data.train))).split(500):
        yield data.train.batch(index)[0]


def _text(plan: PlanLike) -> str:
    if isinstance(plan, Plan):
        return "a plan given as a tensor"
    return describe(*(parse_plan(plan) if isinstance(plan, str) else plan))

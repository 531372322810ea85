"""A trained run from Python.

    run = mar.load("runs/digits")
    result = run.nll(split="test", plan="spiral/cosine:16")
    images = run.sample(64, plan="hilbert", guidance=2.0)

B batch · L tokens · N images
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mar import build
from mar.config import Recipe
from mar.data.base import Data
from mar.errors import UserError
from mar.heads.base import sampling_options
from mar.likelihood.score import Likelihood, score
from mar.model import Model
from mar.noise import Noise, stream
from mar.sampling.generate import OnStep
from mar.sampling.guidance import Guidance
from mar.sampling.many import sample_many
from mar.training import checkpoint
from mar.training.run_folder import RunFolder
from orderings import Grid, Ordering, Partition, Plan, parse_plan

PlanLike = str | Plan | tuple[Ordering, Partition]


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
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model: Model = build.model(self.recipe, self.data)
        self.checkpoint, _ = checkpoint.latest(self.folder.checkpoints)
        if self.checkpoint is None:
            raise UserError(f"{path} has no checkpoint yet: train it with the command that started it")
        self.checkpoint.load_model(self.model, ema)
        self.model.to(self.device).eval().requires_grad_(False)
        self.grid = Grid(self.model.tokenizer.shape)

    @cached_property
    def data(self) -> Data:
        return build.data(self.recipe)

    def plan(self, plan: PlanLike, batch: int, noise: Noise, given_BL: torch.Tensor | None = None) -> Plan:
        """Plans for ``batch`` rows: ``"spiral/cosine:16"``, an (ordering, partition) pair, or a Plan as it is."""
        if isinstance(plan, Plan):
            return plan.to(self.device)
        ordering, partition = parse_plan(plan) if isinstance(plan, str) else plan
        return Plan.draw(ordering, partition, self.grid, batch, noise.to("cpu"), given_BL).to(self.device)

    def nll(
        self,
        images: torch.Tensor | None = None,
        plan: PlanLike = "random",
        labels: torch.Tensor | None = None,
        split: str = "test",
        limit: int | None = None,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> Likelihood:
        """Likelihood of images (N, C, H, W) in the data set's levels, or of a split, along a plan.

        ``options`` are ``mar.likelihood.score.score``'s: kind, budget.
        """
        if images is None:
            index = torch.arange(min(limit or 10**9, len(self.data.split(split))))
            images, labels = self.data.split(split).batch(index)
        return score(self, images, labels, plan, seed, progress=progress, **options)

    def sample(
        self,
        n: int,
        plan: PlanLike = "random",
        labels: torch.Tensor | None = None,
        guidance: float | Guidance = 1.0,
        temperature: float = 1.0,
        seed: int = 0,
        batch_size: int = 256,
        on_step: OnStep | None = None,
        given: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
        **head_options: Any,
    ) -> torch.Tensor:
        """N images (N, C, H, W) in the data set's levels; image k is the same for any n and batch size.

        Args:
            labels: (N,) classes; None: all in turn.
            guidance: a scale, with the linear schedule, or a Guidance.
            given: (C, H, W) or (N, C, H, W) images, of which the tokens outside ``mask`` are kept.
            mask: bool (L,) or of the grid's shape, True where tokens are to be generated.
            head_options: the head's sampling options (top_k, solver, steps, …).
        """
        guidance = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
        if guidance.active and not self.model.n_classes:
            raise UserError("guidance needs a class-conditional model: this run has no classes")
        with sampling_options(self.model.head, head_options):
            return sample_many(
                self, n, plan, self._labels(labels, n), guidance, temperature, seed, batch_size, on_step, given, mask,
                progress,
            )  # fmt: skip

    def _labels(self, labels: torch.Tensor | None, n: int) -> torch.Tensor:
        if not self.model.n_classes:
            return torch.full((n,), -1)
        if labels is None:
            return torch.arange(n) % self.model.n_classes
        if int(labels.max()) >= self.model.n_classes:
            last = self.model.n_classes - 1
            raise UserError(f"class {int(labels.max())} is out of range: this run has classes 0..{last}")
        return labels.expand(n)

    def streams(self, seed: int, purpose: str, index: torch.Tensor) -> Noise:
        return stream(seed, purpose, index, self.device)


def load(path: str | Path, ema: bool = True, device: str | None = None) -> Run:
    """The run in a folder, ready to sample and score."""
    return Run(path, ema, device)

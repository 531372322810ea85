"""One model along one plan: its likelihood, its images, its pictures.

B batch · L tokens · N images · K AR steps
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mar.core.noise import stream
from mar.core.progress import Progress
from mar.experiments.evaluations import FidEvaluation, NllEvaluation, Variant
from mar.experiments.result import PlanMap
from mar.experiments.sets import stand_in
from mar.likelihood.estimate import SINGLE, Estimator, Repeats
from mar.likelihood.score import Likelihood
from mar.metrics.result import FidResult
from mar.model.model import Model
from mar.run import Run
from mar.sampling.output import image_grid, save_animation, to_bytes
from orderings import Grid, Plan, PlanSpec, to_text

SAMPLES, ANIMATION = "samples.png", "animation.gif"


_UNKNOWN = torch.tensor([70, 110, 170], dtype=torch.uint8)  # RGB of what is not generated yet


def plan_map(model: Model, plan: str) -> PlanMap:
    """The plan on the model's grid; a random one as some image gets it, one in sets to be measured in equal ones.

    Raises:
        Unsupported: the plan does not fit this grid or this network; the message says which would.
    """
    ordering, partition = PlanSpec.parse(plan)
    grid = Grid(model.tokenizer.shape)
    drawn = Plan.sample(ordering, stand_in(partition), grid, 2, stream(0, "map", 2))
    model.network.check(drawn.step_BL)
    rank_L, step_L = drawn.rank_BL[0].tolist(), drawn.step_BL[0].tolist()
    return PlanMap(grid.shape, ordering.random, tuple(rank_L), tuple(step_L))


def score_nll(
    run: Run, plan: str, wanted: NllEvaluation, variant: Variant | None = None, progress: Progress | None = None
) -> Likelihood:
    """The likelihood of the split along ``plan``; with ``wanted.orders``, of mixtures of random orders too."""
    rule, options = (variant.adaptive, variant.likelihood) if variant is not None else ("", {})
    repeats = Repeats(orders=wanted.orders) if wanted.orders and run.plans(plan).random and not rule else SINGLE
    return run.nll(
        plan=adaptive_plan(rule, plan) if rule else plan, split=wanted.split, limit=wanted.images, seed=wanted.seed,
        progress=progress, repeats=repeats, likelihood=dict(options), kind=wanted.kind,
        estimator=Estimator.parse(wanted.estimator),
    )  # fmt: skip


def adaptive_plan(rule: str, plan: str) -> str:
    """The order that ``rule`` finds, in sets of the sizes of ``plan``."""
    return f"{rule}/{to_text(PlanSpec.parse(plan)[1])}"


def sample(
    run: Run, plan: str, wanted: FidEvaluation, variant: Variant | None, folder: Path, progress: Progress | None = None
) -> torch.Tensor:
    """Images (N, C, H, W) along ``plan``; the first ones become a picture and an animation in ``folder``."""
    film = Film(run, min(wanted.animated, wanted.images))
    options: dict[str, Any] = dict(variant.options) if variant is not None else {}
    images = run.sample(
        wanted.images, plan, guidance=_chosen(variant, "guidance", wanted), seed=wanted.seed,
        temperature=_chosen(variant, "temperature", wanted), on_step=film.frame, progress=progress,
        adaptive=(variant.adaptive or None) if variant is not None else None, **options,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    shown = images[: wanted.shown]
    image_grid(shown, run.data.spec.levels, columns=min(10, len(shown))).save(folder / SAMPLES)
    save_animation(film.frames, 256, folder / ANIMATION)
    return images


def _chosen(variant: Variant | None, name: str, wanted: FidEvaluation) -> float:
    own = None if variant is None else getattr(variant, name)
    return getattr(wanted, name) if own is None else own


def score_images(run: Run, images: torch.Tensor, wanted: FidEvaluation, cache: Path) -> FidResult:
    """FID and the rest of ``images``; ``cache`` keeps the classifier and the features of the real images."""
    from mar.metrics.fid import score_images as score

    return score(images, run.images, cache, on=wanted.split, seed=wanted.seed, device=run.device)


class Film:
    """Watches a generation and keeps its first rows after each step, with what is not generated yet in colour."""

    def __init__(self, run: Run, n: int) -> None:
        self.run, self.n = run, n
        self.frames: list[torch.Tensor] = []  # (n, 3, H, W) uint8
        self.known_BL: torch.Tensor | None = None

    def frame(self, step: int, token: torch.Tensor, target_BL: torch.Tensor) -> None:
        """Called after each AR step of each batch; only the first batch is filmed."""
        if len(self.frames) != step:
            return
        known_BL = target_BL[: self.n].cpu()
        self.known_BL = known_BL if self.known_BL is None else self.known_BL | known_BL
        images = self.run.model.tokenizer.decode(token[: self.n]).cpu()
        pixels_NHWC = to_bytes(images, self.run.data.spec.levels)
        known_NHW = _on_pixels(self.known_BL, self.run.grid.shape, pixels_NHWC.shape[1:3])
        pixels_NHWC = torch.where(known_NHW[..., None], pixels_NHWC, _UNKNOWN)
        self.frames.append(pixels_NHWC.permute(0, 3, 1, 2))


def _on_pixels(known_BL: torch.Tensor, grid: tuple[int, ...], size: tuple[int, ...]) -> torch.Tensor:
    """(B, H, W) bool: pixels whose token (all of whose channels) is known."""
    rows, columns = grid[0], grid[1] if len(grid) > 1 else 1
    known = known_BL.reshape(len(known_BL), rows, columns, -1).all(-1)
    tall = torch.arange(size[0]) * rows // size[0]
    wide = torch.arange(size[1]) * columns // size[1]
    return known[:, tall][:, :, wide]

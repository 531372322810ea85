"""One model along one plan: its likelihood, its images, its pictures.

B batch · L tokens · N images · K AR steps
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mar.ablation.evaluations import FidEvaluation, NllEvaluation
from mar.ablation.result import PlanMap
from mar.evaluation.result import FidResult
from mar.likelihood.score import Likelihood
from mar.model import Model
from mar.noise import stream
from mar.run import Run
from mar.sampling.pictures import image_grid, save_animation, to_bytes
from orderings import Grid, Plan, parse_plan

Progress = Callable[[int, int], None]

SAMPLES, ANIMATION = "samples.png", "animation.gif"
_UNKNOWN = torch.tensor([70, 110, 170], dtype=torch.uint8)  # RGB of what is not generated yet


def plan_map(model: Model, plan: str) -> PlanMap:
    """The plan on the model's grid; a random one as some image gets it.

    Raises:
        Unsupported: the plan does not fit this grid or this network; the message says which would.
    """
    ordering, partition = parse_plan(plan)
    grid = Grid(model.tokenizer.shape)
    drawn = Plan.draw(ordering, partition, grid, 2, stream(0, "map", 2))
    model.network.check(drawn.step_BL)
    rank_L, step_L = drawn.rank_BL[0].tolist(), drawn.step_BL[0].tolist()
    return PlanMap(grid.shape, ordering.random, tuple(rank_L), tuple(step_L))


def score_nll(run: Run, plan: str, wanted: NllEvaluation, progress: Progress | None = None) -> Likelihood:
    """The likelihood of the split along ``plan``."""
    return run.nll(plan=plan, split=wanted.split, limit=wanted.images, seed=wanted.seed, progress=progress)


def sample(run: Run, plan: str, wanted: FidEvaluation, folder: Path, progress: Progress | None = None) -> torch.Tensor:
    """Images (N, C, H, W) along ``plan``; the first ones become a picture and an animation in ``folder``."""
    film = Film(run, min(wanted.animated, wanted.images))
    images = run.sample(
        wanted.images, plan, guidance=wanted.guidance, temperature=wanted.temperature, seed=wanted.seed,
        on_step=film.frame, progress=progress,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    shown = images[: wanted.shown]
    image_grid(shown, run.data.spec.levels, columns=min(10, len(shown))).save(folder / SAMPLES)
    save_animation(film.frames, 256, folder / ANIMATION)
    return images


def score_images(run: Run, images: torch.Tensor, wanted: FidEvaluation, cache: Path) -> FidResult:
    """FID and the rest of ``images``; ``cache`` keeps the classifier and the features of the real images."""
    from mar.evaluation.fid import score_images as score

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

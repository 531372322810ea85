"""Pictures of samples: a grid, single images, and the generation as an animation.

N images · C channels · H, W rows, columns · K AR steps
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from mar.errors import Unsupported
from mar.model import Model
from mar.noise import stream
from mar.sampling.generate import generate
from mar.sampling.guidance import Guidance
from mar.sampling.learned import generate_by_policy
from orderings import Grid, Ordering, Partition, Plan, parse_partition


def to_bytes(x_NCHW: torch.Tensor, levels: int) -> torch.Tensor:
    """Integer levels 0..levels-1 -> uint8 0..255 (N, H, W, 3)."""
    scaled = (x_NCHW.float() * (255.0 / (levels - 1))).round().to(torch.uint8)
    return scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def image_grid(x_NCHW: torch.Tensor, levels: int, columns: int | None = None, side: int = 48) -> Image.Image:
    """All images in one picture, enlarged by a whole factor to about ``side`` pixels, with thin borders."""
    pixels = to_bytes(x_NCHW.cpu(), levels)
    n, height, width, _ = pixels.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows, factor = math.ceil(n / columns), max(1, round(side / max(height, width)))
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    cell_h, cell_w = height * factor + 2, width * factor + 2
    canvas = torch.full((rows * cell_h, columns * cell_w, 3), 96, dtype=torch.uint8)
    for k, image in enumerate(pixels):
        top, left = (k // columns) * cell_h + 1, (k % columns) * cell_w + 1
        canvas[top : top + height * factor, left : left + width * factor] = image
    return Image.fromarray(canvas.numpy())


def save_images(x_NCHW: torch.Tensor, levels: int, folder: Path) -> None:
    """``00000.png``, ``00001.png``, …, in place of whatever pictures the folder held."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]*.png"):
        old.unlink()
    for k, image in enumerate(to_bytes(x_NCHW.cpu(), levels)):
        Image.fromarray(image.numpy()).save(folder / f"{k:05d}.png")


def save_animation(frames: Sequence[torch.Tensor], levels: int, path: Path, seconds: float = 6.0) -> None:
    """A GIF of the generation: ``frames`` are (N, C, H, W) after each step; at most 64 of them are shown."""
    every = max(1, math.ceil(len(frames) / 64))
    shown = [*frames[::every], frames[-1]]
    pictures = [image_grid(frame, levels) for frame in shown]
    duration = max(20, int(1000 * seconds / len(pictures)))
    times = [duration] * (len(pictures) - 1) + [1500]
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0)


def quick_samples(model: Model, ordering: Ordering, partition: Partition, seed: int, n: int) -> torch.Tensor:
    """(N, C, H, W): ``n`` samples in at most 16 AR steps, or in ``partition`` if the network serves no other or the
    tokens are a series: what is drawn together there seldom goes together."""
    device = next(model.parameters()).device
    grid = Grid(model.tokenizer.shape)
    noise = stream(seed, "training-samples", n, device)
    few, order_noise = parse_partition(f"cosine:{min(16, len(grid))}"), noise.at("order").to("cpu")
    plan = Plan.draw(ordering, partition if grid.ndim == 1 else few, grid, n, order_noise)
    try:
        model.network.check(plan.step_BL)
    except Unsupported:
        plan = Plan.draw(ordering, partition, grid, n, order_noise)
    plan = plan.to(device)
    label_B = torch.arange(n, device=device) % model.n_classes if model.n_classes else torch.full((n,), -1).to(device)
    if ordering.learned:
        token = generate_by_policy(model, plan, label_B, noise.at("tokens"), Guidance(), 1.0, given=None)
    else:
        token = generate(model, plan, label_B, noise.at("tokens"))
    return model.tokenizer.decode(token).cpu()

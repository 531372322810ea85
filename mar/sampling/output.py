"""Files of a sampling run, and the images and masks that inpainting reads.

N images · C channels · H, W rows, columns · L tokens
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from mar.errors import UserError
from mar.sampling.pictures import image_grid, save_animation, save_images

if TYPE_CHECKING:
    from mar.run import Run


def write_samples(
    x_NCHW: torch.Tensor, levels: int, folder: Path, frames: Sequence[torch.Tensor] | None = None
) -> None:
    """``grid.png`` (at most 400 images), ``images/*.png``, ``images.npz`` (the levels, uint8), ``generation.gif``."""
    folder.mkdir(parents=True, exist_ok=True)
    image_grid(x_NCHW[:400], levels).save(folder / "grid.png")
    save_images(x_NCHW, levels, folder / "images")
    np.savez_compressed(folder / "images.npz", images=x_NCHW.numpy(), levels=levels)
    if frames is not None:
        save_animation(frames, levels, folder / "generation.gif")


def load_given(path: Path, run: Run) -> torch.Tensor:
    """(C, H, W) in the data set's levels, from a picture of exactly the right size."""
    channels, height, width = run.spec.shape
    pixels = _picture(path, "RGB" if channels == 3 else "L")
    if pixels.shape[-2:] != (height, width):
        raise UserError(f"{path} is {pixels.shape[-1]}x{pixels.shape[-2]}, this run makes {width}x{height} images")
    return (pixels.float() * ((run.spec.levels - 1) / 255.0)).round().to(torch.uint8)


def load_mask(path: Path, run: Run) -> torch.Tensor:
    """(L,) bool, True where tokens are generated: a token is when any pixel under it is brighter than half."""
    bright = _picture(path, "L")[0] > 127
    rows, columns, *channels = run.grid.shape if run.grid.ndim > 1 else (1, run.grid.shape[0])
    if bright.shape[0] % rows or bright.shape[1] % columns:
        size = f"{bright.shape[1]}x{bright.shape[0]}"
        raise UserError(f"{path} is {size}: a mask has a multiple of the token grid's size, {columns}x{rows}")
    cells = bright.reshape(rows, bright.shape[0] // rows, columns, bright.shape[1] // columns).any(3).any(1)
    if not cells.any():
        raise UserError(f"{path} is dark everywhere: bright pixels mark what is generated")
    return cells.flatten().repeat_interleave(math.prod(channels))


def _picture(path: Path, mode: str) -> torch.Tensor:
    """(C, H, W) uint8."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert(mode))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the picture {path}: {error}") from None
    return torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)

"""One image file as a square tensor.

C channels
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mar.errors import UserError


class DamagedImage(UserError):
    """A file that no image can be read from."""


def read_image(file: Path, size: int, colour: str) -> torch.Tensor:
    """(C, size, size) uint8. Raises UserError naming a file that is damaged, too small, or of more than 8 bits."""
    try:
        with Image.open(file) as image:
            image.load()
            mode, loaded = image.mode, image.convert("RGB" if colour == "rgb" else "L")
    except Exception as error:  # on a damaged file Pillow raises almost anything
        raise DamagedImage(f"{file} is no readable image ({error}): replace or remove it") from None
    if mode.startswith(("I", "F")):
        raise UserError(f"{file} has more than 8 bits a channel: convert it to 8")
    if min(loaded.size) < size:
        width, height = loaded.size
        raise UserError(f"{file} is {width}x{height}, smaller than data.size={size}: lower the size or remove it")
    pixels = np.array(centre_crop(loaded, size)).reshape(size, size, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The centred square at ``size``, as ADM prepares ImageNet (Dhariwal and Nichol 2021): halved by box filter while
    at least twice too large, then bicubic, then cropped."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))

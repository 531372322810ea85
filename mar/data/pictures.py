"""One image file as the picture that viewers show, in 8 bits a channel, square and of one size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

from mar.core.errors import UserError

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_GREY = ("1", "L", "LA", "La")
_SIXTEEN = re.compile(r";16[BLNS]")  # in Pillow's name of the stored layout; its mode says RGB
_LARGEST = 2**28  # values of an image before it is cropped


class DamagedImage(UserError):
    """The file is not a readable image."""


def as_shown(image: Image.Image, what: object, under: str = "white") -> Image.Image:
    """Return an opened image as viewers show it: the first frame, turned by its EXIF tag, over the colour ``under``.

    Raises:
        UserError: it has more than 8 bits a channel, or a colour space without a conversion to RGB.
    """
    stored = [(layout.codec_name, layout.args) for layout in getattr(image, "tile", [])]
    wide = any(_SIXTEEN.search(str(args)) or (name == "ppm" and args[-1] > 255) for name, args in stored)
    if wide or image.mode.startswith(("I", "F")):
        raise UserError(f"{what} has more than 8 bits a channel: convert it to 8")
    if image.mode not in _MODES:
        raise UserError(f"{what} has the colour space {image.mode}: convert it to RGB")
    image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, under), image).convert("RGB")


def open_image(file: Path | BinaryIO, mode: str, under: str = "white", what: object = None) -> Image.Image:
    """Return the picture in a file, RGB or L; "": L if it is grey. ``what`` names an open file in errors.

    Raises:
        DamagedImage: it is not readable. UserError: as ``as_shown``.
    """
    what = file if what is None else what
    try:
        with Image.open(file) as image:
            shown = as_shown(image, what, under)
            return shown.convert(mode or ("L" if image.mode in _GREY else "RGB"))
    except UserError:
        raise
    except Exception as error:  # Pillow raises many types on damaged files
        raise DamagedImage(f"{what} is no readable image ({error}): replace or remove it") from None


def read_image(file: Path, size: int, colour: str) -> torch.Tensor:
    """Return (C, size, size) uint8.

    Raises:
        DamagedImage: the file is not a readable image. UserError: as ``as_shown``, or it is too long and narrow.
    """
    return square(open_image(file, "RGB" if colour == "rgb" else "L"), size, file)


def square(loaded: Image.Image, size: int, what: object) -> torch.Tensor:
    """Return the centred square as (C, size, size) uint8. UserError: the picture is too long and narrow."""
    width, height = loaded.size
    if max(size / min(width, height), 1) ** 2 * width * height > _LARGEST:
        raise UserError(f"{what} is {width}x{height}, too long and narrow for a square of data.size={size}: crop it")
    return pixels_of(centre_crop(loaded, size))


def pixels_of(loaded: Image.Image) -> torch.Tensor:
    """Return the pixels of an L or RGB picture as (C, H, W) uint8."""
    pixels = np.array(loaded).reshape(loaded.height, loaded.width, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the centred square at ``size``, as ADM prepares ImageNet (Dhariwal and Nichol 2021).

    The image is halved with a box filter while at least twice too large, resized bicubically (also enlarged), cropped.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))

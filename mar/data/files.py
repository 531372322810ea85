"""Readers of files: published files found and compared with their checksum, images, and text.

C channels · T characters of the text · V alphabet
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mar.core.errors import UserError

_GZIP = b"\x1f\x8b"


def folder_at(path: str, holds: str, home: str = "") -> Path:
    """Return the folder ``data.path``, which should hold ``holds`` from ``home``. UserError: it is missing."""
    should = f"it should name a folder of {holds}{'; ' * bool(home)}{home}"
    if not path:
        raise UserError(f"data.path is not set: {should}")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path={path} is not a folder: {should}")
    return root


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published data set.

    Attributes:
        names: accepted file names, the published one first; each also with ``.gz``.
        expected: its content, in words.
        home: its source.
        md5: of the unpacked file; "" if none was published.
    """

    names: tuple[str, ...]
    expected: str
    home: str
    md5: str = ""

    def find(self, path: str, nested: tuple[str, ...]) -> Path:
        """Return the file in the folder ``path`` or one of its ``nested`` folders. UserError: it is missing."""
        want = f"{self.names[0]}(.gz)"
        root = folder_at(path, want, f"get it from {self.home}")
        for folder in (root, *(root / name for name in nested)):
            for name in self.names:
                for file in (folder / name, folder / f"{name}.gz"):
                    if file.is_file():
                        return file
        places = ", ".join((".", *nested))
        raise UserError(f"{want} is not in {root} (looked in {places}): {self.expected}; get it from {self.home}")

    def read(self, file: Path) -> bytes:
        """Return the unpacked content; the content, not the name, tells if it is packed."""
        try:
            raw = file.read_bytes()
            return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.damaged(file, f"the gzip file is truncated or damaged ({error})") from None
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror or error}") from None

    def damaged(self, file: Path, why: str) -> UserError:
        """Return the error for a file with wrong content."""
        return UserError(f"{file}: {why}; expected {self.expected}; get it again from {self.home}")

    def note(self, raw: bytes) -> dict[str, str]:
        """Return a note for ``Data.notes`` if the content is readable but not the published one."""
        md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest() if self.md5 else ""
        if md5 == self.md5:
            return {}
        return {self.names[0]: f"md5 {md5} is not the published {self.md5}: figures may not compare with papers"}


class DamagedImage(UserError):
    """The file is not a readable image."""


def read_image(file: Path, size: int, colour: str) -> torch.Tensor:
    """Return (C, size, size) uint8. Raises UserError naming a file that is damaged, too small, or over 8 bits."""
    try:
        with Image.open(file) as image:
            image.load()
            mode, loaded = image.mode, image.convert("RGB" if colour == "rgb" else "L")
    except Exception as error:  # Pillow raises many types on damaged files
        raise DamagedImage(f"{file} is no readable image ({error}): replace or remove it") from None
    if mode.startswith(("I", "F")):
        raise UserError(f"{file} has more than 8 bits a channel: convert it to 8")
    if min(loaded.size) < size:
        width, height = loaded.size
        raise UserError(f"{file} is {width}x{height}, smaller than data.size={size}: lower the size or remove it")
    pixels = np.array(centre_crop(loaded, size)).reshape(size, size, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the centred square at ``size``, as ADM prepares ImageNet (Dhariwal and Nichol 2021).

    The image is halved with a box filter while at least twice too large, resized bicubically, then cropped.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


_HINT = "e.g. https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_LARGEST = 2**15 - 2  # levels of int16, less one that ends a document


def text_files(path: str) -> list[Path]:
    """Return the file, or the .txt files of the folder sorted by name.

    Raises:
        UserError: there is no such file.
    """
    if not path:
        raise UserError(f"data.path is not set: it names a text file, or a folder of .txt files; {_HINT}")
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"data.path={path} is not a folder of .txt files, nor a text file; {_HINT}")
    if not (found := sorted(root.glob("*.txt"))):
        raise UserError(f"{root} holds no .txt file: it should hold the text; {_HINT}")
    return found


def read_bytes(file: Path) -> bytes:
    """Return the content. Raises UserError if the file cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None


def read_characters(file: Path) -> str:
    """Return the text with line ends as newlines. Raises UserError if it is not UTF-8."""
    try:
        return read_bytes(file).decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text (byte {error.start}): convert it, or use data.unit=byte") from None


def byte_levels(raw: bytes) -> torch.Tensor:
    """Return text_T (uint8) of bytes: a byte is its own level."""
    return torch.from_numpy(np.frombuffer(raw, np.uint8).copy())


def character_levels(text: str, path: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return text_T (uint8, or int16 above 256 characters) and the alphabet, sorted by code point.

    Raises:
        UserError: fewer than two different characters, or too many.
    """
    points_T = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    point_V, level_T = np.unique(points_T, return_inverse=True)
    if not 2 <= len(point_V) <= _LARGEST:
        raise UserError(f"{path} has {len(point_V)} different characters, not 2 to {_LARGEST}: use data.unit=byte")
    level_T = level_T.astype(np.uint8 if len(point_V) <= 256 else np.int16)
    return torch.from_numpy(level_T), tuple(map(chr, point_V))

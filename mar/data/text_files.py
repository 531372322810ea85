"""Reading text: files, bytes or characters, and the alphabet.

T characters of the text · V alphabet
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mar.errors import UserError

_HINT = "e.g. https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_LARGEST = 2**15 - 2  # levels that int16 holds, beside one that ends a document


def text_files(path: str) -> list[Path]:
    """The file, or the .txt files of the folder in the order of their names.

    Raises:
        UserError: there are none.
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
    """Raises UserError where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None


def read_characters(file: Path) -> str:
    """With one newline for every kind of line end. Raises UserError where it is no UTF-8."""
    try:
        return read_bytes(file).decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text (byte {error.start}): convert it, or use data.unit=byte") from None


def byte_levels(raw: bytes) -> torch.Tensor:
    """text_T (uint8) of bytes, which are their own levels."""
    return torch.from_numpy(np.frombuffer(raw, np.uint8).copy())


def character_levels(text: str, path: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """text_T (uint8, or int16 above 256 characters) and the alphabet, in the order of the code points.

    Raises:
        UserError: fewer than two different characters, or too many.
    """
    points_T = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    point_V, level_T = np.unique(points_T, return_inverse=True)
    if not 2 <= len(point_V) <= _LARGEST:
        raise UserError(f"{path} has {len(point_V)} different characters, not 2 to {_LARGEST}: use data.unit=byte")
    level_T = level_T.astype(np.uint8 if len(point_V) <= 256 else np.int16)
    return torch.from_numpy(level_T), tuple(map(chr, point_V))

"""Windows of text, its characters, bytes or subwords, from a file or a folder of files; the readers of text.

T tokens of the text (characters, bytes or subwords) · N windows or parts · L tokens of a window · V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.options import at_least
from mar.core.spec import DataSpec
from mar.data import subwords
from mar.data.base import Data, DataOptions, DataSource, Windows, fingerprint, starts
from mar.data.files import walk

_ROUNDING = 1e-9  # 0.9 + 0.1 is the whole text
_HINT = "e.g. https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_POINTS = 0x110000  # of Unicode
_LARGEST = 2**15 - 2  # levels of int16, less one that ends a document
_MARK = b"\xef\xbb\xbf"  # the byte order mark of UTF-8


def text_files(path: str) -> list[Path]:
    """Return the file, or the .txt files of the folder sorted by name. Raises UserError if there is no such file."""
    if not path:
        raise UserError(f"data.path is not set: it names a text file, or a folder of .txt files; {_HINT}")
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"data.path={path} is not a folder of .txt files, nor a text file; {_HINT}")
    listing = walk(root, (".txt",), deep=False)
    if not listing.files:
        raise UserError(f"{root} holds no .txt file: it should hold the text; {_HINT}")
    listing.say(f"{len(listing.files):,} text files")
    return [root / name for name in listing.files]


def read_text(file: Path, unit: str, line_ends: bool = True) -> bytes:
    """Return the content of a text file without its byte order mark; it is UTF-8 unless read by bytes.

    Args:
        line_ends: in bytes, too, replace the line ends of other systems with newlines, as in characters and subwords.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        raw = file.read_bytes().removeprefix(_MARK)
        if unit != "byte":
            raw.decode()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text (byte {error.start}): convert it, or use data.unit=byte") from None
    return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if line_ends or unit != "byte" else raw


def check_unit(unit: str) -> None:
    """Raise UserError unless ``data.unit`` is character, byte or has the form of a path."""
    if unit not in ("character", "byte") and "/" not in unit and not unit.endswith(".json"):
        raise UserError(f"data.unit is character, byte, or the path of a tokenizer (./gpt2, bpe.json), not {unit!r}")


@dataclass(frozen=True)
class Encoded:
    """N parts of a text, one after the other, as levels.

    Attributes:
        text_T: uint8; int16 above 256 levels, int32 above 32,768.
        length_N: of each part.
        alphabet, tokenizer: as in ``DataSpec``.
        size_V: the bytes of each token of a tokenizer, where they sum to the bytes of the text; else None.
    """

    text_T: torch.Tensor
    length_N: torch.Tensor
    levels: int = 256
    alphabet: tuple[str, ...] = ()
    tokenizer: str = ""
    size_V: torch.Tensor | None = None

    def identity(self, content: str) -> str:
        """Return the fingerprint of data whose levels have the fingerprint ``content``."""
        return digest(content, self.tokenizer) if self.tokenizer else content

    def token_bytes(self, first_N: torch.Tensor, length_N: torch.Tensor, ends: int = 0) -> float:
        """Return the mean bytes of a token of text_T[first : first + length] of each example; 0.0: not known.

        Args:
            ends: tokens of them that end a document.
        """
        if self.size_V is None:
            return 0.0
        until_T = torch.nn.functional.pad(self.size_V[self.text_T.long()].cumsum(0), (1, 0))
        return int((until_T[first_N + length_N] - until_T[first_N]).sum()) / (int(length_N.sum()) + ends)

    def notes(self, size: float) -> dict[str, str]:
        """Return a note with ``size``, the ``token_bytes`` of the test split."""
        if not self.tokenizer:
            return {}
        if not size:
            return {"tokens": "the tokenizer does not restore the text: bits/token are not comparable with bits/byte"}
        return {"tokens": f"a token of the test split is {size:.4f} bytes of text: bits/byte = bits/token / {size:.4f}"}


def levels(parts: list[bytes], unit: str, path: str) -> Encoded:
    """Return the levels of all parts: characters sorted by code point, bytes, or the ids of the tokenizer ``unit``.

    Raises:
        UserError: fewer than two different characters, or too many; or there is no such tokenizer.
    """
    if unit == "byte":
        text_T = np.frombuffer(b"".join(parts), np.uint8).copy()
        return Encoded(torch.from_numpy(text_T), torch.tensor([*map(len, parts)]))
    texts = [part.decode() for part in parts]
    if unit != "character":
        tokenizer = subwords.read_tokenizer(unit)
        id_T, length_N = subwords.encode(texts, tokenizer)
        size_V = subwords.sizes(tokenizer)
        if len(size_V) < 2:
            raise UserError(f"the tokenizer {unit} has {len(size_V)} tokens: it needs two")
        restored = int(size_V[id_T.long()].sum()) == sum(map(len, parts))
        kinds = ((2**8, torch.uint8), (2**15, torch.int16), (2**31, torch.int32))
        text_T = id_T.to(next(kind for most, kind in kinds if len(size_V) <= most))
        return Encoded(text_T, length_N, len(size_V), tokenizer=tokenizer, size_V=size_V if restored else None)
    point_T = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    level_of = np.zeros(_POINTS, np.int16)  # by code point: no sorting of the hundred million characters of text8
    level_of[point_T] = 1
    point_V = np.flatnonzero(level_of)
    if not 2 <= len(point_V) <= _LARGEST:
        raise UserError(f"{path} has {len(point_V)} different characters, not 2 to {_LARGEST}: use data.unit=byte")
    level_of[point_V] = np.arange(len(point_V))
    text_T = torch.from_numpy(level_of.astype(np.uint8 if len(point_V) <= 256 else np.int16)[point_T])
    return Encoded(text_T, torch.tensor([*map(len, texts)]), len(point_V), tuple(map(chr, point_V)))


@dataclass(frozen=True)
class TextOptions(DataOptions):
    path: str = ""  # a text file, or a folder: its .txt files in the order of their names, as one text
    unit: str = "character"  # or byte, or the path of a tokenizer
    context: int = 64  # tokens of a window
    stride: int = 1  # tokens between the starts of training windows
    train: float = 0.9  # share of the text, from its start
    validation: float = 0.1  # share that follows; the rest is the test split, or, with no rest, the same as validation
    bounds: ClassVar = dict.fromkeys(("context", "stride"), at_least(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_unit(self.unit)
        if not (self.train > 0 and self.validation > 0 and self.train + self.validation <= 1 + _ROUNDING):
            shares = f"{self.train} and {self.validation}"
            raise UserError(f"data.train and data.validation are shares of at most 1 together, not {shares}")


class Text(DataSource):
    """Training windows start at every ``stride``-th offset; held-out windows do not overlap."""

    Options = TextOptions
    name = "text"

    @classmethod
    def load(cls, options: TextOptions) -> Data:
        """Return the splits; the alphabet is that of the whole text. A tokenizer reads one file at a time."""
        parts = [read_text(file, options.unit, line_ends=False) for file in text_files(options.path)]
        text = levels(parts, options.unit, options.path)
        text_T, alphabet = text.text_T, text.alphabet
        spec = DataSpec(
            (1, 1, options.context), text.levels, modality="text", alphabet=alphabet, tokenizer=text.tokenizer
        )
        cuts, notes = _cuts(len(text_T), options)
        splits = []
        for split, (first, end) in cuts.items():
            start_N = starts(first, end, options.context, options.stride if split == "train" else options.context)
            if not len(start_N):
                raise UserError(
                    f"the {split} split of {options.path} has {end - first} {spec.symbol}s, fewer than "
                    f"data.context={options.context}: lower it, or use more text"
                )
            splits.append(Windows(text_T, start_N, options.context, span_R2=torch.tensor([[first, end]])))
        content = fingerprint(text_T, torch.tensor([*map(ord, alphabet)]), *(split.start_N for split in splits))
        train, validation, test = splits
        size = text.token_bytes(test.start_N, torch.full_like(test.start_N, options.context))
        return Data(
            cls.name, spec, train, validation, test, text.identity(content), notes=notes | text.notes(size),
            token_bytes=size,
        )  # fmt: skip


def _cuts(length: int, options: TextOptions) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Return (first, end) of each split, and notes about them."""
    first = int(length * options.train)
    if options.train + options.validation > 1 - _ROUNDING:
        held_out, note = (first, length), "the test split is the validation split: data.validation=0.05 makes two"
        return {"train": (0, first), "validation": held_out, "test": held_out}, {"splits": note}
    second = int(length * (options.train + options.validation))
    return {"train": (0, first), "validation": (first, second), "test": (second, length)}, {}

"""Windows of text, its characters or its bytes, from a file or a folder of files.

T characters of the text · N windows · L characters of a window
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import Data, DataOptions, DataSource, Windows, fingerprint, starts
from mar.data.files import byte_levels, character_levels, read_bytes, read_characters, text_files

_ROUNDING = 1e-9  # 0.9 + 0.1 is the whole text


@dataclass(frozen=True)
class TextOptions(DataOptions):
    path: str = ""  # a text file, or a folder: its .txt files in the order of their names, as one text
    unit: Literal["character", "byte"] = "character"
    context: int = 64  # characters of a window
    stride: int = 1  # characters between the starts of training windows
    train: float = 0.9  # share of the text, from its start
    validation: float = 0.1  # share that follows; the rest is the test split, or, with no rest, the same as validation

    def __post_init__(self) -> None:
        if min(self.context, self.stride) < 1:
            raise UserError(f"data.context and data.stride must be at least 1, not {self.context} and {self.stride}")
        if min(self.train, self.validation) <= 0 or self.train + self.validation > 1 + _ROUNDING:
            shares = f"{self.train} and {self.validation}"
            raise UserError(f"data.train and data.validation are shares of at most 1 together, not {shares}")


class Text(DataSource):
    """Training windows start at every ``stride``-th offset; held-out windows do not overlap."""

    Options = TextOptions
    name = "text"

    @classmethod
    def load(cls, options: TextOptions) -> Data:
        """Return the splits; the alphabet is that of the whole text, sorted by code point."""
        files = text_files(options.path)
        if options.unit == "byte":
            text_T, alphabet = byte_levels(b"".join(map(read_bytes, files))), ()
        else:
            text_T, alphabet = character_levels("".join(map(read_characters, files)), options.path)
        cuts, notes = _cuts(len(text_T), options)
        splits = []
        for split, (first, end) in cuts.items():
            start_N = starts(first, end, options.context, options.stride if split == "train" else options.context)
            if not len(start_N):
                raise UserError(
                    f"the {split} split of {options.path} has {end - first} {options.unit}s, fewer than "
                    f"data.context={options.context}: lower it, or use more text"
                )
            splits.append(Windows(text_T, start_N, options.context, span_R2=torch.tensor([[first, end]])))
        spec = DataSpec((1, 1, options.context), len(alphabet) or 256, modality="text", alphabet=alphabet)
        content = fingerprint(text_T, torch.tensor([*map(ord, alphabet)]), *(split.start_N for split in splits))
        train, validation, test = splits
        return Data(cls.name, spec, train, validation, test, content, notes)


def _cuts(length: int, options: TextOptions) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Return (first, end) of each split, and notes about them."""
    first = int(length * options.train)
    if options.train + options.validation > 1 - _ROUNDING:
        held_out, note = (first, length), "the test split is the validation split: data.validation=0.05 makes two"
        return {"train": (0, first), "validation": held_out, "test": held_out}, {"splits": note}
    second = int(length * (options.train + options.validation))
    return {"train": (0, first), "validation": (first, second), "test": (second, length)}, {}

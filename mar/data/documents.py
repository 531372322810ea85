"""Texts of different lengths: the files of a folder, or the parts of a text between separators.

T characters of all documents · N documents · B batch · L characters of the longest that is read whole
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.options import at_least
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, Data, DataOptions, DataSource, Split, check_shares, fingerprint
from mar.data.files import folder_at, walk
from mar.data.text import check_unit, levels, read_text, text_files

_WRITTEN = {rb"\n": b"\n", rb"\t": b"\t"}  # how a separator is written in a recipe


@dataclass(frozen=True)
class DocumentsOptions(DataOptions):
    path: str = ""  # a text file, or a folder of .txt files
    separator: str = ""  # between documents, e.g. \n or \n\n; "": each file is one
    unit: str = "character"  # or byte, or the path of a tokenizer
    context: int = 256  # tokens of the longest example: longer documents are cut
    validation: float = 0.05  # share of the documents
    test: float = 0.05  # share of the documents
    bounds: ClassVar = {"context": at_least(2)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_unit(self.unit)
        check_shares(validation=self.validation, test=self.test)


@dataclass(frozen=True)
class DocumentSplit(Split):
    """Document n is text_T[start_N[n] : start_N[n] + length_N[n]], then ``end`` as often as it takes to fill L."""

    text_T: torch.Tensor
    start_N: torch.Tensor
    length_N: torch.Tensor
    context: int
    end: int

    def __len__(self) -> int:
        return len(self.start_N)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return x (B, 1, 1, L), without labels."""
        place_L = torch.arange(self.context)
        at_BL = (self.start_N[index_B][:, None] + place_L).clamp(max=len(self.text_T) - 1)
        x_BL = torch.where(place_L < self.length_N[index_B][:, None], self.text_T[at_BL], self.end)
        return x_BL.to(self.text_T.dtype)[:, None, None], None


class Documents(DataSource):
    """One fixed shuffle, then train, validation and test; the level after the alphabet's ends a document.

    A document of n < L characters is n + 1 tokens, its end included; a longer one is its first L, without an end, so
    that the probabilities of all documents, those cut off too, sum to one.
    """

    Options = DocumentsOptions
    name = "documents"

    @classmethod
    def load(cls, options: DocumentsOptions) -> Data:
        """Return the splits; the alphabet is that of all documents, sorted by code point."""
        parts = _documents(options)
        return documents_of(
            cls.name, parts, _shuffled(len(parts), options), options.path, options.unit, options.context
        )


@dataclass(frozen=True)
class Lm1bOptions(DataOptions):
    path: str = ""  # the folder of the benchmark
    unit: str = "character"  # or byte, or the path of a tokenizer
    context: int = 128  # of the longest sentence: longer ones are cut
    shards: int = 0  # of the 99 training files, the first ones; 0: all
    bounds: ClassVar = {"context": at_least(2), "shards": at_least(0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_unit(self.unit)


class Lm1b(DataSource):
    """Sentences of the one billion word benchmark (Chelba et al. 2014), a line each, by its file names.

    The test split is ``news.en.heldout-00000-of-00050``, as in papers, the validation split the next held-out file.
    """

    Options = Lm1bOptions
    name = "lm1b"

    @classmethod
    def load(cls, options: Lm1bOptions) -> Data:
        held, trained = "news.en.heldout-{:05d}-of-00050", re.compile(r"(?:.*/)?news\.en-\d{5}-of-00100")
        home = "https://www.statmt.org/lm-benchmark"
        root = folder_at(options.path, "the one billion word benchmark", home)
        listing = walk(root, ("",))
        train = [name for name in listing.files if trained.fullmatch(name)]
        splits = {"train": train[: options.shards or None]}
        for split, number in (("validation", 1), ("test", 0)):
            splits[split] = [name for name in listing.files if name.split("/")[-1] == held.format(number)][:1]
        if lacks := [split for split, names in splits.items() if not names]:
            wanted = {"train": "news.en-00001-of-00100", "validation": held.format(1), "test": held.format(0)}
            raise UserError(f"{root} has no {wanted[lacks[0]]} of the {lacks[0]} split: get it again from {home}")
        parts, index = list[bytes](), list[torch.Tensor]()
        for names in splits.values():
            first = len(parts)
            for name in names:
                parts += [line for line in read_text(root / name, options.unit).split(b"\n") if line]
            index.append(torch.arange(first, len(parts)))
        return documents_of(cls.name, parts, index, options.path, options.unit, options.context)


def documents_of(
    name: str, parts: list[bytes], index: Sequence[torch.Tensor], path: str, unit: str, context: int
) -> Data:
    """Return the data of documents; ``index`` has the numbers of those of each split. UserError: as ``levels``."""
    text = levels(parts, unit, path)
    length_N, alphabet, end = text.length_N, text.alphabet, text.levels
    text_T = text.text_T.to(torch.uint8 if end < 2**8 else torch.int16 if end < 2**15 else torch.int32)
    start_N = length_N.cumsum(0) - length_N
    splits = [DocumentSplit(text_T, start_N[own], length_N[own], context, end) for own in index]
    contents = (x for split in splits for x in (split.start_N, split.length_N))
    content = fingerprint(text_T, *contents, torch.tensor([context, *map(ord, alphabet)]))
    spec = DataSpec((1, 1, context), end + 1, modality="text", alphabet=alphabet, tokenizer=text.tokenizer, end=end)
    train, validation, test = splits
    size = text.token_bytes(test.start_N, test.length_N.clamp(max=context), int((test.length_N < context).sum()))
    notes = _notes(splits, f"{context} {spec.symbol}s") | text.notes(size)
    return Data(name, spec, train, validation, test, text.identity(content), notes, token_bytes=size)


def _notes(splits: list[DocumentSplit], most: str) -> dict[str, str]:
    """Return a note with the number of documents that are cut."""
    cut = [int((split.length_N >= split.context).sum()) for split in splits]
    counts = ", ".join(f"{n} of {len(split)} {name}" for n, split, name in zip(cut, splits, SPLITS, strict=True))
    return {"cut": f"{counts} documents have {most} or more: only these count (data.context)"} if any(cut) else {}


def _documents(options: DocumentsOptions) -> list[bytes]:
    """Return all documents but empty ones. With a separator bytes are text, too: line ends become newlines."""
    separator = options.separator.encode()
    for written, meant in _WRITTEN.items():
        separator = separator.replace(written, meant)
    texts = [read_text(file, options.unit, line_ends=bool(separator)) for file in text_files(options.path)]
    parts = [part for text in texts for part in (text.split(separator) if separator else [text])]
    return [part for part in parts if part]


def _shuffled(n: int, options: DocumentsOptions) -> tuple[torch.Tensor, ...]:
    """Return the numbers of the documents of each split: neighbours in a file are alike, so splits are shuffled.

    Raises:
        UserError: there are too few for three splits.
    """
    order_N = stream(0, "data/documents/shuffle", torch.tensor([n])).uniform(n)[0].argsort(stable=True)
    held_out = [max(1, round(n * share)) for share in (options.validation, options.test)]
    if sum(held_out) >= n:
        raise UserError(
            f"{options.path} holds {n} document(s), and training, validation and test want one each: "
            r"data.separator cuts a file, e.g. data.separator='\n' where each line is a document"
        )
    return order_N.split([n - sum(held_out), *held_out])

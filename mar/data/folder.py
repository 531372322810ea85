"""A folder of images in class folders, decoded on access.

``path/train/<class>/…`` with ``path/val`` and ``path/test`` beside it, or ``path/<class>/…`` alone: a missing split is
cut out of the training images by a hash of each image's path inside its split. Images outside class folders make a
data set without labels. ``docs/data.md`` has the rules as a table.

N examples · B batch · C, H, W channels, rows, columns of an image
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Literal

import torch
from PIL import Image

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.log import logger
from mar.core.options import at_least, between
from mar.core.readers import reading
from mar.core.spec import DataSpec
from mar.data.base import Data, DataOptions, DataSource, Split, check_shares
from mar.data.files import Listing, contents, folder_at, printable, walk
from mar.data.pictures import SUFFIXES, DamagedImage, as_shown, read_image

_COUNTING = Lock()  # of damaged images, by the threads that decode
_ROLES = {"train": "train|training", "validation": "val|valid|validation", "test": "test|testing"}
_NAMES = "|".join(f"(?P<{role}>{names})" for role, names in _ROLES.items())
_ROLE = re.compile(f"(?P<before>.*[_ -])?(?:{_NAMES})(?:[_ -]?(?:set|images|data|split))?", re.IGNORECASE)
_TEXTS = (".txt", ".xml", ".json", ".csv", ".tsv", ".md", ".html", ".yaml", ".yml")


@dataclass(frozen=True)
class FolderOptions(DataOptions):
    path: str = ""  # the folder
    size: int = 64  # side of the square images, in pixels
    colour: Literal["rgb", "grey"] = "rgb"
    flip: bool = False  # each training image twice: example N + i is example i mirrored
    validation: float = 0.05  # share of the images, without a folder of validation images
    test: float = 0.05  # share of the images, without a folder of test images; 0: the validation images are the test
    workers: int = 4  # threads that decode
    damaged_limit: int = 10  # unreadable training images that the next ones replace; more are refused
    bounds: ClassVar = {"size": between(1, 2**14), "workers": between(1, 1024), "damaged_limit": at_least(0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(validation=self.validation, **({"test": self.test} if self.test else {}))


@dataclass(frozen=True)
class FolderSplit(Split):
    """Images decoded on access. With ``flip`` the second half of the numbers are the mirrored first half.

    The next image of the listing replaces an unreadable one, the same for any number of processes.
    """

    root: Path
    files: tuple[str, ...]
    label_N: torch.Tensor | None
    options: FolderOptions
    damaged: list[str] = field(default_factory=list, compare=False)  # names of the unreadable files so far

    def __len__(self) -> int:
        return len(self.files) * (2 if self.options.flip else 1)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return x (B, C, size, size) uint8 and label_B.

        Raises:
            UserError: an image cannot be used, or more images are damaged than ``damaged_limit``.
        """
        # threads live for one batch (about a millisecond): they need no fork, pickle or shutdown
        with ThreadPoolExecutor(self.options.workers) as pool:
            images, numbers = zip(*pool.map(self._example, index_B.tolist()), strict=True)
        label_B = None if self.label_N is None else self.label_N[list(numbers)]
        return torch.stack(images), label_B

    def _example(self, index: int) -> tuple[torch.Tensor, int]:
        """Return the image and the number of its file."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        number = index % len(self.files)
        while True:
            try:
                image = read_image(self.root / self.files[number], self.options.size, self.options.colour)
            except DamagedImage as damage:
                self._pass_over(self.files[number], damage)
                number = (number + 1) % len(self.files)
            else:
                return (image if index < len(self.files) else image.flip(-1)), number

    def _pass_over(self, name: str, damage: DamagedImage) -> None:
        """Record a damaged image. Raises UserError if it exceeds the limit."""
        limit = min(self.options.damaged_limit, len(self.files) - 1)
        with _COUNTING:
            if name in self.damaged:
                return
            if len(self.damaged) >= limit:
                before = ", ".join(sorted(self.damaged))
                others = f" (data.damaged_limit={limit}; before it {before})" if self.damaged else ""
                raise UserError(f"{damage}{others}")
            self.damaged.append(name)
            count = f"damaged: {len(self.damaged)} of at most {limit}"
            logger.info(f"note: {damage}; the next image stands in for it ({count})")


class Folder(DataSource):
    """Square images of one size, 256 levels."""

    Options = FolderOptions
    name = "folder"

    @classmethod
    def load(cls, options: FolderOptions) -> Data:
        """List the files and read one image of each split; the others are decoded on access."""
        listing = walk(folder_at(options.path, "one folder of images a class"), SUFFIXES)
        files, classes, notes = find_splits(listing, options)
        number = {name: i for i, name in enumerate(classes)}
        splits: dict[str, Any] = {}
        for split, pairs in files.items():
            label_N = torch.tensor([number[_class(inside)] for _, inside in pairs]) if classes else None
            own = options if split == "train" else replace(options, flip=False, damaged_limit=0)
            splits[split] = FolderSplit(listing.root, tuple(file for file, _ in pairs), label_N, own)
            splits[split].batch(torch.tensor([0]))  # an error in all files appears now
        counts = ", ".join(f"{len(files[split]):,} {split}" for split in ("train", "validation", "test"))
        listing.say(f"{counts} images of {len(classes) or 'no'} classes")
        spec = DataSpec((3 if options.colour == "rgb" else 1, options.size, options.size), 256, len(classes), classes)
        now, former = _identities(listing.root, files, options)
        return Data(cls.name, spec, **splits, fingerprint=now, notes=notes, former=former)


def every_image(path: Path, size: int = 0, colour: Literal["rgb", "grey"] = "rgb") -> FolderSplit:
    """Return all images below a folder as one split without labels, or raise UserError if there are none.

    Size 0: the shorter side of the first image.
    """
    listing = walk(path, SUFFIXES)
    if not listing.files:
        raise UserError(f"{path} has no images ({', '.join(SUFFIXES)})")
    if not size:
        with reading(path / listing.files[0], "an image"), Image.open(path / listing.files[0]) as first:
            size = min(as_shown(first, path / listing.files[0]).size)
    listing.say(f"{len(listing.files):,} images")
    return FolderSplit(path, listing.files, None, FolderOptions(str(path), size, colour, damaged_limit=0))


Pairs = list[tuple[str, str]]  # of each image: its path inside the root, its path inside the split's folder


def find_splits(
    listing: Listing, options: FolderOptions, mend: str = ""
) -> tuple[dict[str, Pairs], tuple[str, ...], dict[str, str]]:
    """Return the images of each split in a fixed order, the classes, and notes. ``mend`` says what an empty split
    wants, where files are no pictures.

    Raises:
        UserError: split folders or class folders are ambiguous, or a split or class has no images.
    """
    root, roles, notes = listing.root, _roles(listing), dict[str, str]()
    files = {split: _below(listing, folder) for split, folder in (roles or {"train": ""}).items()}
    taken = {file for pairs in files.values() for file, _ in pairs}
    listing.ignore("images outside the split folders", [file for file in listing.files if file not in taken])
    everything = files["train"]
    classes = _classes(files, listing, roles.get("train", ""), notes)
    shares, kept = {"test": options.test, "validation": options.validation}, ""
    if "test" not in files and "validation" in files:
        if not options.test:
            files["test"], notes["test"] = files["validation"], "the test split is the validation split"
        kept = "; data.test=0 trains on them and tests on val/"
    elif "test" not in files and not options.test:
        raise UserError(f"data.test=0 makes the validation images the test split, and {root} has no val/")
    cut = [split for split in shares if split not in files]
    for split in cut:
        notes[split] = f"cut out of the training images by a hash of the path, share {shares[split]}{kept}"

    def split_of(inside: str) -> str:
        at = position_of(inside)
        split = "test" if at < options.test else "validation" if at < options.test + options.validation else "train"
        return split if split in cut else "train"

    files |= {split: [] for split in ("train", *cut)}
    trained = {_class(inside) for _, inside in everything if split_of(inside) == "train"}
    for pair in everything:
        first = (name := _class(pair[1])) not in trained  # of a class that would be held out, the first image stays
        trained.add(name)
        files["train" if first else split_of(pair[1])].append(pair)
    for split, pairs in files.items():
        if not pairs:
            what = f"no {'files' if mend else 'images'}{f' for {split}' if everything else ''}"
            add = f" ({', '.join(SUFFIXES)}): add some, or raise data.{split}'s share"
            raise UserError(f"{root} has {what}{f': {mend}' if mend else add}")
    return files, classes, notes


def _below(listing: Listing, folder: str) -> Pairs:
    prefix = f"{folder}/" if folder else ""
    return [(file, file.removeprefix(prefix)) for file in listing.files if file.startswith(prefix)]


def _roles(listing: Listing) -> dict[str, str]:
    """Return the folder of each split; {} if the folders are classes. UserError: they may be either."""
    tops = [name for name in listing.folders if "/" not in name]
    named = [(name, match) for name in tops if (match := _ROLE.fullmatch(name))]
    plain = [(name, match.lastgroup) for name, match in named if not match["before"]]
    if not any(role == "train" for _, role in plain) and len(named) == len(tops):  # seg_train beside seg_test
        plain = [(name, match.lastgroup) for name, match in named]
    found: dict[str, str] = {}
    for name, role in plain:
        if role in found:
            raise UserError(f"{listing.root} has {found[role]}/ and {name}/ for the {role} split: keep one")
        found[str(role)] = name
    if found and "train" not in found:
        other = next(iter(found.values()))
        raise UserError(f"{listing.root} has {other}/ and no train/: name the folder of training images train")
    return {split: found[split] for split in _ROLES if split in found}


def position_of(inside: str) -> float:
    """Return a number in [0, 1), a function of the path only."""
    return int.from_bytes(hashlib.sha256(os.fsencode(inside)).digest()[:6], "little") * 2.0**-48


def _class(inside: str) -> str:
    return inside.split("/")[0] if "/" in inside else ""


def _classes(files: dict[str, Pairs], listing: Listing, training: str, notes: dict[str, str]) -> tuple[str, ...]:
    """Return the sorted class names; () if no image lies in a class folder.

    Raises:
        UserError: a class folder has no training images, or images lie beside class folders.
    """
    names = {split: {_class(inside) for _, inside in pairs} for split, pairs in files.items()}
    everywhere, root = set().union(*names.values()), listing.root
    if everywhere <= {""}:
        return ()
    if "" in everywhere:
        raise UserError(f"{root} has images both in class folders and beside them: move all into class folders")
    prefix = f"{training}/" if training else ""
    folders = [name.removeprefix(prefix) for name in listing.folders if name.startswith(prefix)]
    others = []
    for name in sorted({folder for folder in folders if "/" not in folder} - names["train"]):
        held = [file for every in listing.ignored.values() for file in every if file.startswith(f"{prefix}{name}/")]
        if held and name not in everywhere and all(file.lower().endswith(_TEXTS) for file in held):
            others.append(name)
            continue
        endings = ", ".join(sorted({Path(file).suffix or "no suffix" for file in held})[:5])
        has = f"files of {endings}" if held else "nothing"
        raise UserError(
            f"class {name!r} in {root} has no training images ({has} in {prefix}{name}): add or convert some "
            f"({', '.join(SUFFIXES)}), or remove the folder"
        )
    if others:
        notes["folders"] = f"folders with text files alone are no classes: {', '.join(others)}"
    if extra := sorted(everywhere - names["train"]):
        raise UserError(f"class {extra[0]!r} in {root} has no training images: add some or remove it")
    if foreign := [name for name in everywhere if printable(name) != name]:
        raise UserError(
            f"the class folder {os.fsencode(foreign[0])!r} in {root} has a name that is not UTF-8: rename it"
        )
    return tuple(sorted(everywhere))


def _identities(root: Path, files: dict[str, Pairs], options: FolderOptions) -> tuple[str, str]:
    """Return the SHA-256 over the options that change examples and the listing with the files' content; and the one
    that earlier versions recorded, with sizes in place of content."""
    listing = [(split, file) for split, pairs in sorted(files.items()) for file, _ in pairs]
    chosen, unique = f"{options.size} {options.colour} {options.flip};", sorted({file for _, file in listing})
    hashes = dict(zip(unique, contents(root, unique), strict=True))
    sizes = {file: (root / file).stat().st_size for file in unique}
    now, former = (
        digest(kind + chosen, *(os.fsencode(f"{split} {file} {of[file]};") for split, file in listing))
        for kind, of in (("content;", hashes), ("", sizes))
    )
    return now, former

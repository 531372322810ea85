"""A folder of images in class folders, decoded on access.

``path/train/<class>/…`` with ``path/val`` and ``path/test`` beside it, or ``path/<class>/…`` alone: a missing split is
cut out of the training images by a hash of each image's path inside its split. Images outside class folders make a
data set without labels.

N examples · B batch · C, H, W channels, rows, columns of an image
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import torch
from PIL import Image

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.spec import DataSpec
from mar.data.base import Data, DataOptions, DataSource, Split
from mar.data.files import DamagedImage, folder_at, read_image

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_COUNTING = Lock()  # of damaged images, by the threads that decode
_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class FolderOptions(DataOptions):
    path: str = ""  # the folder
    size: int = 64  # side of the square images, in pixels
    colour: Literal["rgb", "grey"] = "rgb"
    flip: bool = False  # each training image twice: example N + i is example i mirrored
    validation: float = 0.05  # share of the images, without a folder of validation images
    test: float = 0.05  # share of the images, without a folder of test images
    workers: int = 4  # threads that decode
    damaged_limit: int = 10  # unreadable training images that the next ones replace; more are refused

    def __post_init__(self) -> None:
        if min(self.size, self.workers) < 1:
            raise UserError(f"data.size and data.workers must be at least 1, not {self.size} and {self.workers}")
        if min(self.validation, self.test) <= 0 or self.validation + self.test >= 1:
            raise UserError(
                f"data.validation and data.test are shares that leave some to train on, "
                f"not {self.validation} and {self.test}"
            )
        if self.damaged_limit < 0:
            raise UserError(f"data.damaged_limit is a number of images, not {self.damaged_limit}")


@dataclass(frozen=True)
class FolderSplit(Split):
    """Images decoded on access. With ``flip`` the second half of the numbers are the mirrored first half.

    The next image of the listing replaces an unreadable one: a function of the files only, so that any number of
    processes reads the same examples.

    Attributes:
        damaged: names of the unreadable files so far.
    """

    root: Path
    files: tuple[str, ...]
    label_N: torch.Tensor | None
    options: FolderOptions
    damaged: list[str] = field(default_factory=list, compare=False)

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
            print(f"note: {damage}; the next image stands in for it (damaged: {len(self.damaged)} of at most {limit})")


class Folder(DataSource):
    """Square images of one size, 256 levels."""

    Options = FolderOptions
    name = "folder"

    @classmethod
    def load(cls, options: FolderOptions) -> Data:
        """List the files and read one image of each split; the others are decoded on access."""
        root = folder_at(options.path, "one folder of images a class")
        files, notes = _find_splits(root, options)
        classes = _classes(files, root)
        number = {name: i for i, name in enumerate(classes)}
        splits: dict[str, Any] = {}
        for split, pairs in files.items():
            label_N = torch.tensor([number[_class(inside)] for _, inside in pairs]) if classes else None
            own = options if split == "train" else replace(options, flip=False, damaged_limit=0)
            splits[split] = FolderSplit(root, tuple(file for file, _ in pairs), label_N, own)
            splits[split].batch(torch.tensor([0]))  # an error in all files appears now
        spec = DataSpec((3 if options.colour == "rgb" else 1, options.size, options.size), 256, len(classes), classes)
        return Data(cls.name, spec, **splits, fingerprint=_fingerprint(root, files, options), notes=notes)


def every_image(path: Path, size: int = 0, colour: Literal["rgb", "grey"] = "rgb") -> FolderSplit:
    """Return all images below a folder as one split without labels. Size 0: the shorter side of the first image.

    Raises:
        UserError: the folder has no images.
    """
    files = _images(path)
    if not files:
        raise UserError(f"{path} has no images ({', '.join(_SUFFIXES)})")
    if not size:
        with Image.open(path / files[0]) as first:
            size = min(first.size)
    return FolderSplit(path, tuple(files), None, FolderOptions(str(path), size, colour, damaged_limit=0))


Pairs = list[tuple[str, str]]  # of each image: its path inside the root, its path inside the split's folder


def _find_splits(root: Path, options: FolderOptions) -> tuple[dict[str, Pairs], dict[str, str]]:
    """Return the images of each split in a fixed order, and notes on splits cut out of the training images."""
    if not (root / "train").is_dir():
        files = {"train": [(inside, inside) for inside in _images(root)]}
    else:
        files = {}
        for split, names in _FOLDERS.items():
            name = next((name for name in names if (root / name).is_dir()), None)
            if name:
                files[split] = [(f"{name}/{inside}", inside) for inside in _images(root / name)]
    notes, start = {}, 0.0
    everything = files["train"]
    for split, share in (("test", options.test), ("validation", options.validation)):
        if split not in files:
            files[split] = [pair for pair in everything if start <= _position(pair[1]) < start + share]
            files["train"] = [pair for pair in files["train"] if not start <= _position(pair[1]) < start + share]
            notes[split] = f"cut out of the training images by a hash of the path, share {share}"
        start += share
    for split, pairs in files.items():
        if not pairs:
            what = "no images" if not everything else f"no images for {split}"
            raise UserError(f"{root} has {what} ({', '.join(_SUFFIXES)}): add some, or raise data.{split}'s share")
    return files, notes


def _images(folder: Path) -> list[str]:
    """Return the paths of the images below ``folder``, relative to it, with forward slashes, sorted."""
    found = []
    for here, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(here).relative_to(folder).as_posix()
        wanted = (name for name in names if name.lower().endswith(_SUFFIXES) and not name.startswith("."))
        found += [name if prefix == "." else f"{prefix}/{name}" for name in wanted]
    return sorted(found)


def _position(inside: str) -> float:
    """Return a number in [0, 1), a function of the path only."""
    return int.from_bytes(hashlib.sha256(inside.encode()).digest()[:6], "little") * 2.0**-48


def _class(inside: str) -> str:
    return inside.split("/")[0] if "/" in inside else ""


def _classes(files: dict[str, Pairs], root: Path) -> tuple[str, ...]:
    """Return the sorted class names; () if no image lies in a class folder."""
    names = {split: {_class(inside) for _, inside in pairs} for split, pairs in files.items()}
    everywhere = set().union(*names.values())
    if everywhere == {""}:
        return ()
    if "" in everywhere:
        raise UserError(f"{root} has images both in class folders and beside them: move all into class folders")
    extra = sorted(everywhere - names["train"])
    if extra:
        raise UserError(f"class {extra[0]!r} in {root} has no training images: add some or remove it")
    return tuple(sorted(everywhere))


def _fingerprint(root: Path, files: dict[str, Pairs], options: FolderOptions) -> str:
    """Return a sha256 over the listing with file sizes, and the options that change examples (contents: too slow)."""
    listing = ((split, file) for split, pairs in sorted(files.items()) for file, _ in pairs)
    sizes = (f"{split} {file} {(root / file).stat().st_size};" for split, file in listing)
    return digest(f"{options.size} {options.colour} {options.flip};", *sizes)

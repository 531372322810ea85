"""Videos from an ``.npz`` file of arrays, or a folder of animated GIFs, all of one size and length, in memory.

N examples · T frames · C channels · H, W rows, columns
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image, ImageSequence

from mar.core.errors import UserError
from mar.core.readers import read_npz, reading
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, Data, DataOptions, DataSource, TensorSplit
from mar.data.files import walk
from mar.data.folder import FolderOptions, find_splits
from mar.data.memory import in_memory
from mar.data.pictures import as_shown, pixels_of

_EXPECTED = (
    "a folder of .gif files, or an .npz file of levels (videos, frames, rows, columns[, 1 or 3 channels]): one array "
    "or train, validation and test"
)


CLOCK = "{} ms a frame"  # a comment of a GIF, in which equal frames are merged


@dataclass(frozen=True)
class VideoOptions(DataOptions):
    path: str = ""  # the file or folder
    frames: int = 0  # the first ones of each video; 0: all
    levels: int = 0  # 0: of a file the least power of two above the data; of GIFs 256, others are rounded to
    colour: Literal["grey", "rgb"] = "grey"  # of GIFs
    bounds: ClassVar = {
        "frames": ("at least 2, or 0 for all", lambda n: n == 0 or n >= 2),
        "levels": ("2 to 256, or 0 to find them", lambda n: n == 0 or 2 <= n <= 256),
    }


class Video(DataSource):
    """Examples (T, C, H, W) of integer levels. A tenth is held out for each split that is not given."""

    Options = VideoOptions
    name = "video"

    @classmethod
    def load(cls, options: VideoOptions) -> Data:
        path = Path(options.path).expanduser()
        if not options.path:
            raise UserError(f"data.path is not set: it names {_EXPECTED}")
        if not path.exists():
            raise UserError(f"data.path={options.path} is not a file or folder: it should be {_EXPECTED}")
        splits, classes = _gifs(path, options) if path.is_dir() else (_arrays(path, options), ())
        shape, *others = {tuple(split.x.shape[1:]) for split in splits.values()}
        if others or shape[0] < max(2, options.frames) or shape[1] not in (1, 3) or 0 in shape:
            wanted = f"one shape: {max(2, options.frames)} or more frames, 1 or 3 channels, rows, columns"
            raise UserError(f"{path}: videos have {wanted}; not {', '.join(map(str, [shape, *others]))}")
        if empty := [name for name, split in splits.items() if not len(split)]:
            raise UserError(f"{path} has no videos for {', '.join(empty)}")
        flat = {name: (split.x.reshape(len(split), 1, -1, shape[3]), split.label) for name, split in splits.items()}
        levels = options.levels or (256 if path.is_dir() else None)
        found = in_memory(flat, levels=levels)  # as pictures: the frames and channels one below the other
        if found.spec.levels > 256:
            raise UserError(f"{path}: videos have levels 0 to 255; its largest needs {found.spec.levels} levels")
        parts = {name: found.split(name).batch(torch.arange(len(found.split(name)))) for name in SPLITS}
        spec = DataSpec(shape, found.spec.levels, len(classes), classes, modality="video")
        videos = {name: TensorSplit(x.reshape(-1, *shape), label) for name, (x, label) in parts.items()}
        return replace(found, name=cls.name, spec=spec, **videos)


def _arrays(path: Path, options: VideoOptions) -> dict[str, TensorSplit]:
    """Return the splits that a file has; one array is the training split."""
    arrays = {name: array for name, array in read_npz(path, _EXPECTED).items() if array.ndim in (4, 5)}
    arrays = {"train": next(iter(arrays.values()))} if len(arrays) == 1 else arrays
    if {*arrays} not in ({"train"}, {*SPLITS}) or not all(array.dtype.kind in "buif" for array in arrays.values()):
        raise UserError(f"{path} has arrays of videos {', '.join(arrays) or '(none)'}; expected {_EXPECTED}")
    splits = {}
    for name, array in arrays.items():
        array = (array if array.ndim == 5 else array[..., None])[:, : options.frames or None].transpose(0, 1, 4, 2, 3)
        wide = array.dtype.kind in "ui" and array.itemsize > 1  # torch has no arithmetic of uint16
        splits[name] = TensorSplit(torch.from_numpy(array.astype(np.int64) if wide else array))
    return splits


def _gifs(path: Path, options: VideoOptions) -> tuple[dict[str, TensorSplit], tuple[str, ...]]:
    """Return the splits and classes of a folder, as ``data.kind=folder`` finds them, in ``options.levels``."""
    listing = walk(path, (".gif",))
    if not listing.files:
        raise UserError(f"{path} has no .gif files: it should be {_EXPECTED}")
    files, classes, _ = find_splits(listing, FolderOptions(validation=0.1, test=0.1), "add .gif files, or its folder")
    read = {name: _read(path / name, "RGB" if options.colour == "rgb" else "L") for name in listing.files}
    shortest = min((ms for _, times, clock in read.values() for ms in (*times, clock) if ms), default=1)
    videos = {}
    for name, (x, times, _) in read.items():  # writers of GIFs merge equal frames into one that lasts longer
        repeats = torch.tensor([max(1, round(ms / shortest)) for ms in times])
        x = x.repeat_interleave(repeats, 0)[: options.frames or None]
        videos[name] = (x.float() * (((options.levels or 256) - 1) / 255)).round().to(torch.uint8)
    sizes = {name: f"{len(x)} frames of {x.shape[3]}x{x.shape[2]}" for name, x in videos.items()}
    first = listing.files[0]
    if other := next((name for name in sizes if sizes[name] != sizes[first]), ""):
        told = f"{first} has {sizes[first]}, {other} {sizes[other]}"
        raise UserError(f"{path}: {told}: videos have one size and length; data.frames=N takes the first N frames")
    splits = {}
    for split, pairs in files.items():
        label_N = torch.tensor([classes.index(inside.split("/")[0]) for _, inside in pairs]) if classes else None
        splits[split] = TensorSplit(torch.stack([videos[name] for name, _ in pairs]), label_N)
    return splits, classes


def _read(file: Path, mode: str) -> tuple[torch.Tensor, list[int], int]:
    """Return the frames (T, C, H, W), white where they are transparent, their milliseconds, and those of the shortest
    frame by the file's comment; 0: it does not say."""
    with reading(file, "an animated GIF"), Image.open(file) as image:
        said = re.fullmatch(CLOCK.format(r"(\d{1,6})").encode(), image.info.get("comment", b""))
        frames = [(as_shown(frame, file), frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(image)]
    x = torch.stack([pixels_of(frame.convert(mode)) for frame, _ in frames])
    return x, [int(ms) for _, ms in frames], int(said[1]) if said else 0

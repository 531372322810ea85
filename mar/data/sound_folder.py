"""Recordings in class folders, of any format, width, channels and rate: Speech Commands, SC09, one's own.

T samples of a recording
"""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mar.core.errors import UserError, unknown
from mar.core.options import between
from mar.core.readers import read_text, reading
from mar.data.audio import Recording, encode, recorded
from mar.data.base import Data, DataOptions, DataSource, check_shares
from mar.data.files import folder_at, walk
from mar.data.folder import position_of

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}  # of Speech Commands
_EXPECTED = f"a folder of recordings ({', '.join(SUFFIXES)}) for each class"


@dataclass(frozen=True)
class SoundFolderOptions(DataOptions):
    path: str = ""  # the folder of classes
    classes: str = ""  # the folders that are read, between commas; "": all
    rate: int = 16000  # samples a second; recordings of another rate are resampled
    context: int = 16000  # samples of a window; shorter recordings end with silence
    stride: int = 16000  # samples between the starts of training windows of a recording
    validation: float = 0.05  # share of the recordings, without a validation_list.txt
    test: float = 0.05  # share of the recordings, without a testing_list.txt
    bounds: ClassVar = dict.fromkeys(("rate", "context", "stride"), between(1, 2**24))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(validation=self.validation, test=self.test)


class SoundFolder(DataSource):
    """Mono recordings of one rate as 256 mu-law levels; held-out windows of a recording do not overlap."""

    Options = SoundFolderOptions
    name = "sound-folder"

    @classmethod
    def load(cls, options: SoundFolderOptions) -> Data:
        root = folder_at(options.path, _EXPECTED)
        listing = walk(root, SUFFIXES)
        files = [file for file in listing.files if "/" in file and not file.startswith("_")]  # _background_noise_
        listing.ignore(
            "recordings in folders with a leading _", [file for file in listing.files if file.startswith("_")]
        )
        classes = sorted({file.split("/")[0] for file in files})
        if not classes:
            raise UserError(f"{root} holds no recordings in class folders: it should be {_EXPECTED}")
        asked = [name.strip() for name in options.classes.split(",") if name.strip()] or classes
        if wrong := next((name for name in asked if name not in classes), None):
            raise unknown(f"class in {root}:", wrong, classes)
        files = [file for file in files if file.split("/")[0] in asked]
        listing.say(f"{len(files):,} recordings of {len(asked)} classes")
        split_of, notes = _splits(root, files, options)
        with ThreadPoolExecutor() as pool:
            levels = pool.map(lambda file: _levels(root / file, options), files)
            recordings = [
                Recording(root / file, file.split("/")[0], split_of[file], level_T, options.rate)
                for file, level_T in zip(files, levels, strict=True)
            ]
        rule = f"add some, or raise data.{{validation,test}} ({', '.join(_LISTS.values())} name them where they exist)"
        data = recorded(cls.name, recordings, options.path, options.context, options.stride, rule)
        return replace(data, notes=notes)


def _splits(root: Path, files: list[str], options: SoundFolderOptions) -> tuple[dict[str, str], dict[str, str]]:
    """Return the split of each file, by the published lists or else by a hash of its path; and notes."""
    split_of, notes = dict.fromkeys(files, "train"), dict[str, str]()
    listed = {split: root / name for split, name in _LISTS.items() if (root / name).is_file()}
    at, share = 0.0, {"test": options.test, "validation": options.validation}
    for split in ("test", "validation"):
        if split in listed:
            names = read_text(listed[split], "paths of recordings, one a line").split()
            if lost := next((name for name in names if not (root / name).is_file()), None):
                raise UserError(f"{listed[split]} names {lost}, which is not there: get the data set again")
            split_of |= dict.fromkeys(split_of.keys() & {*names}, split)
        else:
            notes[split] = f"the {split} split is cut out by a hash of the path, share {share[split]}"
            own = [file for file in files if split_of[file] == "train" and at <= position_of(file) < at + share[split]]
            split_of |= dict.fromkeys(own, split)
            at += share[split]
    return split_of, notes


def _levels(file: Path, options: SoundFolderOptions) -> torch.Tensor:
    """Return mu-law levels, at least a window of them."""
    sample_T = samples(file, options.rate)
    silence = options.context - len(sample_T)
    return encode(torch.from_numpy(np.pad(sample_T, (0, max(0, silence)))))


def samples(file: Path, rate: int) -> np.ndarray:
    """Return a recording as 16-bit samples (T,): the mean of its channels, resampled by a polyphase filter to ``rate``.

    Raises:
        UserError: it cannot be read, or needs soundfile (all but 16-bit ``.wav``).
    """
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    with reading(file, "a recording"):
        try:
            with warnings.catch_warnings():  # a file shorter than its header says is only a warning there
                warnings.simplefilter("ignore", wavfile.WavFileWarning)
                warnings.filterwarnings("error", "Reached EOF prematurely")
                found, x = wavfile.read(file) if file.suffix.lower() == ".wav" else (0, np.zeros(0))
            plain = x.dtype == np.int16
        except wavfile.WavFileWarning as error:
            raise ValueError(str(error)) from None
        except ValueError:  # another coding, or damaged
            plain = False
        if not plain:
            found, x = _sound_file(file)
        if not len(x):
            raise ValueError("it has no samples")
        mono = x if x.ndim == 1 else x.mean(1)
        if found != rate:
            divisor = math.gcd(found, rate)
            mono = resample_poly(mono.astype(np.float64), rate // divisor, found // divisor)
        return np.clip(np.rint(mono), -(2**15), 2**15 - 1).astype(np.int16)


def _sound_file(file: Path) -> tuple[int, np.ndarray]:
    """Return the rate and samples in the range of 16 bits, (T,) or (T, channels)."""
    try:
        import soundfile  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"{file} needs soundfile: pip install 'mar-orderings[data]'") from None
    x, rate = soundfile.read(file, dtype="float64")
    return rate, x * 2**15

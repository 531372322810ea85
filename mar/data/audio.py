"""Windows of recordings as 256 mu-law levels, from a folder of ``.wav`` files.

T samples of all recordings, one after the other · N windows · L samples of a window

Companding (ITU-T G.711; van den Oord et al. 2016, WaveNet, Sec. 2.2): f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu) of an
amplitude x in [-1, 1], mu = 255, then 256 equal steps.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.options import at_least
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, Data, DataOptions, DataSource, Windows, fingerprint, starts
from mar.data.files import folder_at, walk

LEVELS = 256
_MU = LEVELS - 1


def encode(sample: torch.Tensor) -> torch.Tensor:
    """Convert 16-bit samples (any integer type) to levels, uint8. Silence is 128."""
    x = sample.double() / 2**15
    f = x.sign() * torch.log1p(_MU * x.abs()) / math.log1p(_MU)
    return ((f + 1) / 2 * _MU + 0.5).floor().clamp(0, _MU).to(torch.uint8)


def decode(level: torch.Tensor) -> torch.Tensor:
    """Convert levels to 16-bit samples, int16, the inverse of ``encode``."""
    f = 2 * level.double() / _MU - 1
    x = f.sign() * torch.expm1(f.abs() * math.log1p(_MU)) / _MU
    return (x * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)


_NAME = re.compile(r"(?P<label>[^_]+)_(?:.*_)?(?P<index>\d+)")
_EXPECTED = "16-bit mono .wav files named CLASS_INDEX.wav or CLASS_SPEAKER_INDEX.wav"
_HOME = "e.g. https://github.com/Jakobovski/free-spoken-digit-dataset"


@dataclass(frozen=True)
class AudioOptions(DataOptions):
    path: str = ""  # the folder
    context: int = 256  # samples of a window
    stride: int = 64  # samples between the starts of training windows of a recording
    test: int = 5  # recordings of index 0..test-1 are held out
    validation: int = 1  # the next recordings are for validation
    bounds: ClassVar = dict.fromkeys(("context", "stride", "test", "validation"), at_least(1))


@dataclass(frozen=True)
class Recording:
    file: Path
    label: str  # its class
    split: str
    level_T: torch.Tensor
    rate: int  # samples a second


class Audio(DataSource):
    """Training windows overlap; held-out windows of a recording do not, and its last samples are dropped."""

    Options = AudioOptions
    name = "audio"

    @classmethod
    def load(cls, options: AudioOptions) -> Data:
        """Return splits by the index in the file name, classes by the text before it."""
        recordings = [_read(file, options) for file in _files(options.path)]
        first, rate = recordings[0].file.name, recordings[0].rate
        if other := next((r for r in recordings if r.rate != rate), None):
            raise UserError(f"{other.file} has {other.rate} samples a second, {first} {rate}: convert one")
        rule = (
            f"0..{options.test - 1} are test, the next {options.validation} validation, the others training recordings"
        )
        return recorded(cls.name, recordings, options.path, options.context, options.stride, rule)


def recorded(name: str, recordings: list[Recording], path: str, context: int, stride: int, rule: str) -> Data:
    """Return the windows of recordings of one rate in their splits. UserError: a split has none, with the ``rule``."""
    classes, splits = tuple(sorted({r.label for r in recordings})), dict[str, Any]()
    level_T = torch.cat([r.level_T for r in recordings])
    for split in SPLITS:
        start, label, span, first = [], [], [], 0
        for r in recordings:
            end = first + len(r.level_T)
            if r.split == split:
                start.append(starts(first, end, context, stride if split == "train" else context))
                span.append((first, end))
                label.append(torch.full_like(start[-1], classes.index(r.label)))
            first = end
        if not start:
            raise UserError(f"no recording in {path} is of the {split} split: {rule}")
        splits[split] = Windows(level_T, torch.cat(start), context, torch.cat(label), torch.tensor(span))
    contents = (x for windows in splits.values() for x in (windows.start_N, windows.label_N))
    spec = DataSpec((1, 1, context), LEVELS, len(classes), classes, modality="audio", rate=recordings[0].rate)
    return Data(name, spec, **splits, fingerprint=fingerprint(level_T, *contents))


def _files(path: str) -> list[Path]:
    listing = walk(folder_at(path, _EXPECTED, _HOME), (".wav",), deep=False)
    if not listing.files:
        raise UserError(f"{listing.root} holds no .wav file: it should hold {_EXPECTED}; {_HOME}")
    listing.say(f"{len(listing.files):,} recordings")
    return [listing.root / name for name in listing.files]


def _read(file: Path, options: AudioOptions) -> Recording:
    """Read a recording. Raises UserError naming a file that is wrong."""
    from scipy.io import wavfile

    if not (named := _NAME.fullmatch(file.stem)):
        raise UserError(f"{file} is not named by class and index: expected {_EXPECTED}")
    try:
        with warnings.catch_warnings():  # a file shorter than its header says is only a warning there
            warnings.filterwarnings("error", "Reached EOF prematurely")
            rate, sample_T = wavfile.read(file)
    except Exception as error:  # on a damaged file scipy raises almost anything
        raise UserError(f"{file} is no readable .wav file ({error}); expected {_EXPECTED}; {_HOME}") from None
    if sample_T.dtype != np.int16 or sample_T.ndim != 1:
        channels = sample_T[:1].size
        raise UserError(f"{file} has {channels} channel(s) of {sample_T.dtype}: convert it; expected {_EXPECTED}")
    if len(sample_T) < (context := options.context):
        raise UserError(f"{file} has {len(sample_T)} samples, fewer than data.context={context}: lower it or remove it")
    index, level_T = int(named["index"]), encode(torch.from_numpy(sample_T.copy()))
    held_out = "test" if index < options.test else "validation"
    split = held_out if index < options.test + options.validation else "train"
    return Recording(file, named["label"], split, level_T, rate)

"""Recordings in class folders: the published lists, formats, widths, channels, rates, silence, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from mar.core.errors import UserError
from mar.data.audio import encode
from mar.data.sound_folder import SoundFolder, SoundFolderOptions, samples

TONE = np.round(8000 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16000)).astype(np.int16)


def record(root, name, length=40, rate=16000):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    sample_T = np.random.default_rng(sum(map(ord, name))).integers(-(2**14), 2**14, length).astype(np.int16)
    wavfile.write(root / name, rate, sample_T)
    return sample_T


@pytest.fixture
def commands(tmp_path):
    """Speech Commands in small: three words of six speakers, lists, background noise."""
    sounds = {f"{w}/{s}_nohash_0.wav": None for w in ("bed", "one", "zero") for s in "abcdef"}
    sounds = {name: record(tmp_path, name, 40 if name[-14] != "f" else 25) for name in sounds}
    record(tmp_path, "_background_noise_/pink_noise.wav", 400)
    (tmp_path / "validation_list.txt").write_text("".join(f"{w}/b_nohash_0.wav\n" for w in ("bed", "one", "zero")))
    (tmp_path / "testing_list.txt").write_text("zero/a_nohash_0.wav\none/a_nohash_0.wav\n")
    return tmp_path, sounds


def load(root, **options):
    return SoundFolder.load(SoundFolderOptions(**{"path": str(root), "context": 40, "stride": 40} | options))


def test_splits_are_the_published_lists_and_classes_those_asked_for(commands):
    root, sounds = commands
    data = load(root, classes="zero, one")
    assert data.spec.class_names == ("one", "zero") and data.spec.rate == 16000 and data.spec.levels == 256
    for split, speakers in (("test", "a"), ("validation", "b"), ("train", "cdef")):
        x, label = data.split(split).batch(torch.arange(len(data.split(split))))
        names = [f"{word}/{s}_nohash_0.wav" for word in ("one", "zero") for s in speakers]
        heard = [np.pad(sounds[name], (0, 40 - len(sounds[name]))) for name in names]  # silence after a short one
        assert x.flatten(1).tolist() == [encode(torch.from_numpy(h)).tolist() for h in heard]
        assert label.tolist() == [int(name.startswith("zero")) for name in names]
    assert load(root).spec.class_names == ("bed", "one", "zero")


def test_without_lists_a_hash_of_the_path_cuts(commands):
    root, _ = commands
    for name in ("validation_list.txt", "testing_list.txt"):
        (root / name).unlink()
    data = load(root, validation=0.3, test=0.3)
    assert len(data.train) + len(data.validation) + len(data.test) == 18 and set(data.notes) == {"test", "validation"}


@pytest.mark.parametrize(
    "suffix, subtype", [("flac", "PCM_24"), ("ogg", "VORBIS"), ("wav", "PCM_24"), ("wav", "FLOAT")]
)
def test_every_format_gives_the_samples(tmp_path, suffix, subtype):
    soundfile = pytest.importorskip("soundfile")
    stereo = np.stack([TONE * 1.5, TONE * 0.5], 1) / 2**15
    soundfile.write(tmp_path / f"x.{suffix}", stereo, 16000, subtype=subtype)
    error = np.abs(samples(tmp_path / f"x.{suffix}", 16000)[: len(TONE)].astype(int) - TONE).max()
    assert error <= (1500 if suffix == "ogg" else 1)


def test_resampling_keeps_a_tone_and_sixteen_bits_stay_exact(tmp_path):
    wavfile.write(tmp_path / "x.wav", 16000, TONE)
    assert np.array_equal(samples(tmp_path / "x.wav", 16000), TONE)
    slow, time = samples(tmp_path / "x.wav", 8000), np.arange(800) / 8000
    assert len(slow) == 800
    assert np.abs(slow - 8000 * np.sin(2 * np.pi * 440 * time))[40:-40].max() < 40  # half a percent


def test_what_is_missing_or_damaged_is_refused_in_one_line(commands):
    root, _ = commands
    file = root / "bed/c_nohash_0.wav"
    whole = file.read_bytes()
    for change, options, words in (
        (lambda: None, {"classes": "zero,won"}, "'won'"),
        (lambda: file.write_bytes(whole[:20]), {}, r"c_nohash_0\.wav does not hold a recording"),
        (lambda: file.write_bytes(whole[:60]), {}, "Reached EOF prematurely"),
        (lambda: file.write_bytes(whole) and (root / "one/b_nohash_0.wav").unlink(), {}, "names one/b_nohash_0.wav"),
        (lambda: (root / "validation_list.txt").write_text(""), {}, "is of the validation split"),
    ):
        change()
        with pytest.raises(UserError, match=words) as error:
            load(root, **options)
        assert "\n" not in str(error.value)
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="holds no recordings in class folders"):
        load(root / "empty")

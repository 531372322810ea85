"""Sound: mu-law, splits by recording, windows, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from mar.core.errors import UserError
from mar.data import audio
from mar.data.audio import Audio, AudioOptions
from mar.sampling.output import save_sound


def record(folder, name, length=100, rate=8000, dtype=np.int16, channels=1):
    rng = np.random.default_rng(sum(map(ord, name)))
    shape = length if channels == 1 else (length, channels)
    wavfile.write(folder / f"{name}.wav", rate, rng.integers(-(2**14), 2**14, shape).astype(dtype))


@pytest.fixture
def folder(tmp_path):
    for name in ("yes_anna_0", "yes_anna_1", "yes_anna_2", "no_anna_0", "no_anna_1", "no_anna_10"):
        record(tmp_path, name)
    return tmp_path


def load(folder, **options):
    return Audio.load(AudioOptions(**{"path": str(folder), "context": 30, "stride": 20, "test": 1, **options}))


def heard(folder, *names):
    return [audio.encode(torch.from_numpy(wavfile.read(folder / f"{n}.wav")[1].copy())).tolist() for n in names]


def test_every_level_survives_decoding_and_the_ends_are_full_scale():
    level = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(audio.encode(audio.decode(level)), level)
    ends = torch.tensor([-(2**15), 0, 2**15 - 1], dtype=torch.int16)
    assert audio.encode(ends).tolist() == [0, 128, 255] and audio.decode(level)[[0, 255]].tolist() == [-32768, 32767]


def test_levels_are_those_of_the_formula():
    x = 0.1
    by_hand = int((np.log(1 + 255 * x) / np.log(256) + 1) / 2 * 255 + 0.5)
    assert audio.encode(torch.tensor([round(x * 2**15)])).tolist() == [by_hand]


def test_recordings_are_held_out_by_their_index(folder):
    data = load(folder)
    assert data.spec.class_names == ("no", "yes") and data.spec.rate == 8000 and data.spec.modality == "audio"
    no, yes = heard(folder, "no_anna_0", "yes_anna_0")
    x, label = data.test.batch(torch.arange(len(data.test)))
    assert x.flatten(1).tolist() == [r[i : i + 30] for r in (no, yes) for i in (0, 30, 60)]
    assert label.tolist() == [0, 0, 0, 1, 1, 1]
    no, yes = heard(folder, "no_anna_10", "yes_anna_2")
    x, label = data.train.batch(torch.arange(len(data.train)))
    assert x.flatten(1).tolist() == [r[i : i + 30] for r in (no, yes) for i in (0, 20, 40, 60)]
    assert label.tolist() == [0, 0, 0, 0, 1, 1, 1, 1] and len(data.validation) == 6


def test_written_sounds_are_heard_again(folder):
    data = load(folder)
    x, _ = data.test.batch(torch.arange(2))
    save_sound(x, data.spec, folder / "out")
    rate, sample = wavfile.read(folder / "out/sounds/00001.wav")
    assert rate == 8000 and torch.equal(audio.encode(torch.from_numpy(sample.copy())), x[1].flatten())
    assert (folder / "out/spectrograms.png").stat().st_size > 0


BROKEN = [
    ({"name": "maybe"}, "not named by class and index"),
    ({"name": "yes_zoe_3", "rate": 16000}, "16000 samples a second"),
    ({"name": "no_3", "channels": 2}, r"2 channel\(s\) of int16: convert it"),
    ({"name": "no_3", "dtype": np.int32}, r"1 channel\(s\) of int32"),
    ({"name": "no_3", "length": 20}, r"20 samples, fewer than data\.context=30"),
]


@pytest.mark.parametrize(("changed", "words"), BROKEN, ids=[words for _, words in BROKEN])
def test_unfit_recordings_are_refused_by_name(folder, changed, words):
    record(folder, **changed)
    with pytest.raises(UserError, match=words) as error:
        load(folder)
    assert changed["name"] in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_file_an_empty_folder_and_an_empty_split_are_refused(folder):
    with pytest.raises(UserError, match=r"no recording in .* is of the train split"):
        load(folder, test=20)
    (folder / "no_3.wav").write_bytes(b"RIFF and no more")
    with pytest.raises(UserError, match=r"no_3\.wav is no readable \.wav file"):
        load(folder)
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.wav file"):
        load(folder / "empty")

"""Text: its splits, windows and alphabet, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mar import build, config
from mar.core.errors import UserError
from mar.data.text import Text, TextOptions
from mar.sampling.output import text_of


def load(folder, text, **options):
    (folder / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Text.load(TextOptions(path=str(folder), **options))


def texts(split, spec):
    return [text_of(x, spec) for x in split.batch(torch.arange(len(split)))[0].flatten(1)]


def test_splits_are_the_first_nine_tenths_and_the_last(tmp_path):
    text = "".join(chr(200 + i) for i in range(100))
    data = load(tmp_path, text, context=5)
    assert texts(data.train, data.spec) == [text[i : i + 5] for i in range(86)]  # 86 + 4 is the last of 90
    assert texts(data.validation, data.spec) == [text[90:95], text[95:]]
    assert (
        texts(data.test, data.spec) == texts(data.validation, data.spec) and "validation split" in data.notes["splits"]
    )


def test_a_share_that_is_left_is_the_test_split(tmp_path):
    text = "".join(chr(200 + i) for i in range(100))
    data = load(tmp_path, text, context=4, validation=0.05)
    assert texts(data.validation, data.spec) == [text[90:94]] and texts(data.test, data.spec) == [text[95:99]]
    assert not data.notes


def test_with_a_stride_of_a_window_each_character_is_seen_once_an_epoch(tmp_path):
    text = "the quick brown fox jumps over the lazy dog " * 5
    data = load(tmp_path, text, context=11, stride=11)
    seen = "".join(texts(data.train, data.spec))
    assert seen == text[: len(seen)] and 0 <= int(0.9 * len(text)) - len(seen) < 11


def test_the_alphabet_is_that_of_the_whole_text_in_order(tmp_path):
    data = load(tmp_path, "ba\r\nç" * 20 + "ж", context=2)
    assert data.spec.alphabet == ("\n", "a", "b", "ç", "ж") and data.spec.levels == 5 and data.spec.modality == "text"


def test_more_than_256_characters_fit(tmp_path):
    text = "".join(chr(1000 + i) for i in range(400))
    data = load(tmp_path, text, context=10)
    x, _ = data.validation.batch(torch.tensor([3]))
    assert x.dtype == torch.int16 and text_of(x[0, 0, 0], data.spec) == text[390:]


def test_bytes_need_no_alphabet(tmp_path):
    raw = bytes(range(256)) * 2
    data = load(tmp_path, raw, context=8, unit="byte")
    assert data.spec.levels == 256 and data.spec.alphabet == ()
    assert bytes(data.train.batch(torch.tensor([250]))[0].flatten().tolist()) == raw[250:258]


def test_the_files_of_a_folder_are_one_text_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b.txt").write_text("yz" * 10)
    data = load(tmp_path, "wx" * 10, context=2)
    assert texts(data.train, data.spec)[0] == "wx" and texts(data.test, data.spec)[0] == "yz"


def test_another_text_has_another_fingerprint(tmp_path):
    first = load(tmp_path, "abcd" * 20, context=4).fingerprint
    assert first != load(tmp_path, "abdc" * 20, context=4).fingerprint
    assert first != load(tmp_path, "abce" * 20, context=4).fingerprint  # the same levels


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (b"abc\xff" * 20, {}, r"no UTF-8 text \(byte 3\): convert it, or use data\.unit=byte"),
        ("abcd" * 20, {}, r"the validation split of .* has 8 characters, fewer than data\.context=64"),
        ("aaaa" * 20, {"context": 2}, "1 different characters"),
        (b"", {"unit": "byte"}, "the train split of .* has 0 bytes"),
    ],
)
def test_unfit_text_is_refused_by_name(tmp_path, text, options, words):
    with pytest.raises(UserError, match=words) as error:
        load(tmp_path, text, **options)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.txt file"):
        Text.load(TextOptions(path=str(tmp_path)))


@pytest.mark.parametrize("options", [{"train": 0.9, "validation": 0.2}, {"train": 0.0}, {"context": 0}, {"stride": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match=r"data\."):
        TextOptions(**options)


@pytest.mark.parametrize("name", ["text8", "enwik8"])
def test_the_published_files_are_cut_at_90_and_95_percent(tmp_path, name):
    letters = np.random.default_rng(0).integers(0, 27, 100_000)
    (tmp_path / name).write_text("".join(" abcdefghijklmnopqrstuvwxyz"[i] for i in letters))
    recipe = config.read(name, [f"data.path={tmp_path / name}", "data.context=10", "data.stride=10"])
    data = build.data(recipe)
    assert data.spec.levels == (27 if name == "text8" else 256)
    whole = letters if name == "text8" else np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    for split, (first, end) in {
        "train": (0, 90_000),
        "validation": (90_000, 95_000),
        "test": (95_000, 100_000),
    }.items():
        x = data.split(split).batch(torch.arange(len(data.split(split))))[0].flatten()
        assert np.array_equal(x.numpy(), whole[first:end])

"""Folders as people have them: what is read, what is left out, and what is refused."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from mar.core.errors import UserError
from mar.data.audio import Audio, AudioOptions
from mar.data.documents import Documents, DocumentsOptions
from mar.data.files import DANGLING, HIDDEN, LOOPS, OTHER, contents, walk
from mar.data.folder import Folder, FolderOptions, every_image
from mar.data.text import Text, TextOptions
from tests.data.conftest import write_images

OPTIONS = FolderOptions(size=8, validation=0.2, test=0.2)


def load(folder: Path, **changes):
    return Folder.load(replace(OPTIONS, path=str(folder), **changes))


def layout(folder: Path, *places: str, n: int = 20) -> Path:
    return write_images(folder, [f"{place}/{i}.png" for place in places for i in range(n)])


@pytest.mark.parametrize(
    ("train", "test"),
    [("training", "testing"), ("Train", "Test"), ("training_set", "test_set"), ("seg_train", "seg_test")],
)
def test_split_folders_of_other_names_are_splits_and_no_classes(tmp_path, train, test):
    data = load(layout(tmp_path, *(f"{split}/{c}" for split in (train, test) for c in "01")))
    assert data.spec.class_names == ("0", "1") and len(data.test) == 40
    assert len(data.train) + len(data.validation) == 40 and set(data.notes) == {"validation"}


def position(inside: str) -> float:
    return int.from_bytes(hashlib.sha256(inside.encode()).digest()[:6], "little") / 2**48


def test_validation_images_are_the_same_with_and_without_a_folder_of_test_images(tmp_path):
    layout(tmp_path / "x", "train/a", n=60)
    layout(tmp_path / "y", "train/a", "test/a", n=60)
    places = [f"a/{i}.png" for i in range(60)]
    wanted = sorted(f"train/{name}" for name in places if 0.2 <= position(name) < 0.4)
    assert list(load(tmp_path / "x").validation.files) == list(load(tmp_path / "y").validation.files) == wanted
    assert len(load(tmp_path / "x").train) + len(load(tmp_path / "x").test) + len(wanted) == 60


@pytest.mark.parametrize(
    ("places", "why"),
    [
        (("val/0", "test/0"), "has test/ and no train/"),
        (("cats", "test"), "has test/ and no train/"),
        (("train/0", "Training/0", "test/0"), "Training/ and train/ for the train split"),
    ],
)
def test_ambiguous_split_folders_are_refused(tmp_path, places, why):
    with pytest.raises(UserError, match=why):
        load(layout(tmp_path, *places))


def test_a_class_may_be_called_like_a_split_with_a_word_before_it(tmp_path):
    assert load(layout(tmp_path, "steam_train", "bus")).spec.class_names == ("bus", "steam_train")


def test_without_test_images_the_validation_images_are_the_test_split_if_asked(tmp_path):
    layout(tmp_path, "train/a", n=40)
    layout(tmp_path, "val/a", n=4)
    data = load(tmp_path, test=0.0)
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 4, 4)
    assert data.notes == {"test": "the test split is the validation split"} and len(load(tmp_path).train) < 40
    with pytest.raises(UserError, match=r"data\.test=0 makes .* has no val/"):
        load(layout(tmp_path / "others", "a", "b"), test=0.0)


def test_class_numbers_follow_the_folders_or_the_folder_is_refused(tmp_path):
    layout(tmp_path, "a", "c")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match=r"class 'b' .* no training images \(nothing in b\)"):
        load(tmp_path)
    (tmp_path / "b" / "0.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"class 'b' .* \(files of \.heic in b\)"):
        load(tmp_path)
    (tmp_path / "b" / "0.heic").rename(tmp_path / "b" / "0.xml")
    data = load(tmp_path)
    assert data.spec.class_names == ("a", "c") and data.notes["folders"].endswith("no classes: b")
    for i in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / "b" / f"{i}.jfif", "JPEG")
    assert load(tmp_path).spec.class_names == ("a", "b", "c")


def test_a_class_with_one_image_is_trained_on_it(tmp_path):
    layout(tmp_path, "a", n=40)
    for name in map(str, range(12)):
        layout(tmp_path, name, n=1)
    data = load(tmp_path)
    assert {*map(str, range(12))} < {file.split("/")[0] for file in data.train.files}
    splits = [data.split(name).files for name in ("train", "validation", "test")]
    assert sum(map(len, splits)) == len({file for files in splits for file in files}) == 52
    assert list(splits[0]) == sorted(splits[0])


def test_hidden_files_links_without_a_target_and_loops_are_left_out_and_named(tmp_path, capsys):
    layout(tmp_path, "d/a", "d/b")
    root = tmp_path / "d"
    for name in (".hidden.png", "a/._0.png", "Thumbs.db", "notes.pdf"):
        (root / name).write_bytes(b"x")
    layout(root, "__MACOSX/a", n=1)
    layout(tmp_path, "elsewhere/c", n=20)
    (root / "a" / "gone.png").symlink_to("nowhere.png")
    (root / "b" / "up").symlink_to(root)
    (root / "b" / "beside").symlink_to(root / "a")
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    listing = walk(root, (".png",))
    assert len(listing.files) == 60 and listing.folders == ("a", "b", "c")
    assert listing.ignored == {
        HIDDEN: [".hidden.png", "Thumbs.db", "__MACOSX", "a/._0.png"], OTHER: ["notes.pdf"], DANGLING: ["a/gone.png"],
        LOOPS: ["b/beside", "b/up"],
    }  # fmt: skip
    for _ in range(2):
        assert len(every_image(root)) == 60 and load(root).spec.class_names == ("a", "b", "c")
    said = capsys.readouterr().err
    assert said.count("of 3 classes") == 1 and "1 links without a target" in said


def test_names_that_are_not_utf8_are_read_but_do_not_name_classes(tmp_path):
    layout(tmp_path, "d/a", "d/b")
    strange = os.path.join(os.fsencode(tmp_path / "d" / "a"), b"\xff.png")
    os.rename(os.fsencode(tmp_path / "d" / "a" / "0.png"), strange)
    data = load(tmp_path / "d")
    assert sum(len(data.split(name)) for name in ("train", "validation", "test")) == 40 and data.fingerprint
    os.rename(os.fsencode(tmp_path / "d" / "a"), os.path.join(os.fsencode(tmp_path / "d"), b"\xfe"))
    with pytest.raises(UserError, match="not UTF-8"):
        load(tmp_path / "d")


def test_suffixes_of_every_kind_may_be_upper_case(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "t").mkdir()
    for name, suffix in (("a", ".wav"), ("b", ".WAV")):
        for i in range(8):
            wavfile.write(tmp_path / "w" / f"{name}_{i}{suffix}", 8000, np.full(300, i, np.int16))
    assert Audio.load(AudioOptions(str(tmp_path / "w"), context=64)).spec.class_names == ("a", "b")
    (tmp_path / "t" / "a.txt").write_text("abab " * 50)
    (tmp_path / "t" / "b.TXT").write_text("cdcd " * 50)
    assert Text.load(TextOptions(str(tmp_path / "t"), context=8)).spec.alphabet == (" ", "a", "b", "c", "d")


def test_two_data_sets_of_equal_names_and_sizes_are_two_and_a_moved_one_is_itself(tmp_path):
    for name, shift in (("dark", 0), ("bright", 128)):
        for split in ("train", "val", "test"):
            for i in range(4):
                file = tmp_path / name / split / "a" / f"{i}.bmp"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(i).integers(shift, shift + 128, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(file)
    dark, bright = load(tmp_path / "dark"), load(tmp_path / "bright")
    assert dark.fingerprint != bright.fingerprint and dark.former == bright.former
    assert dark.about.recorded_as(dark.former) and not dark.about.recorded_as(bright.fingerprint)
    assert dark.about.identity(dark.former) == dark.former and dark.about.identity("") == dark.fingerprint
    (tmp_path / "dark").rename(tmp_path / "moved")
    assert load(tmp_path / "moved").fingerprint == dark.fingerprint


def test_a_file_is_hashed_again_when_its_size_time_or_inode_changes_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "d" / "x.png"
    file.parent.mkdir()
    file.write_bytes(b"one")
    os.utime(file, (0, 0))
    first = contents(file.parent, ["x.png"])
    file.write_bytes(b"two")
    os.utime(file, (0, 0))
    assert contents(file.parent, ["x.png"]) == first  # nothing says that it changed
    os.utime(file, (1, 1))
    second = contents(file.parent, ["x.png"])
    assert second != first
    (kept,) = (tmp_path / "cache" / "mar" / "content").glob("*.json")
    for damage in (b"", b"[1]", b'{"x.png": 3}', kept.read_bytes()[:20]):
        kept.write_bytes(damage)
        assert contents(file.parent, ["x.png"]) == second
    assert contents(file.parent, ["x.png", "missing.png"])[1] == "unreadable"


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_byte_order_mark_is_no_text(tmp_path, unit):
    body = b"to be or not to be\n" * 40
    (tmp_path / "plain.txt").write_bytes(body)
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf" + body)
    texts = [Text.load(TextOptions(str(tmp_path / name), unit, 16)) for name in ("plain.txt", "marked.txt")]
    assert texts[0].fingerprint == texts[1].fingerprint


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_documents_of_other_systems_are_the_same_documents(tmp_path, unit):
    lines = [f"document {i:02d}" for i in range(30)]
    (tmp_path / "unix.txt").write_bytes("\n\n".join(lines).encode())
    (tmp_path / "windows.txt").write_bytes("\r\n\r\n".join(lines).encode())
    unix, windows = (
        Documents.load(DocumentsOptions(str(tmp_path / name), r"\n\n", unit, 32))
        for name in ("unix.txt", "windows.txt")
    )
    assert unix.fingerprint == windows.fingerprint and len(unix.train) == 26


def test_a_recording_shorter_than_its_header_says_is_refused(tmp_path):
    for i in range(8):
        wavfile.write(tmp_path / f"a_{i}.wav", 8000, np.full(300, i, np.int16))
    file = tmp_path / "a_3.wav"
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(UserError, match=r"a_3\.wav is no readable \.wav file"):
        Audio.load(AudioOptions(str(tmp_path), context=64))

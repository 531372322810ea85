"""``mar data check`` lists what a folder holds, and exits as training would."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mar.cli.data import check
from mar.core.errors import UserError
from mar.data.check import guess
from tests.data.conftest import NAMES, write_images, write_npz, write_recordings, write_text

SHARES = ["data.size=16", "data.validation=0.2", "data.test=0.2"]


def listed(capsys, *arguments, **options) -> dict[str, tuple[int, list[str]]]:
    check(*arguments, json=True, **options)
    return {line["what"]: (line["count"], line["files"]) for line in json.loads(capsys.readouterr().out)}


def test_unusual_images_and_files_left_out_are_listed_with_their_names(tmp_path, capsys):
    folder = write_images(tmp_path / "d", NAMES, size=(20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 20)).save(folder / "cat" / "turned.jpg", exif=exif)
    Image.new("RGBA", (12, 12)).save(folder / "cat" / "clear.png")
    (folder / "dog" / "cut.png").write_bytes((folder / "dog" / "0.png").read_bytes()[:60])
    (folder / "notes.pdf").write_bytes(b"x")
    found = listed(capsys, str(folder), SHARES)
    assert found["files read"][0] == 43 and found["left out: files of other kinds"] == (1, ["notes.pdf"])
    assert found["images turned by their EXIF orientation"] == (1, ["cat/turned.jpg"])
    assert found["images transparent, shown over white"] == (1, ["cat/clear.png"])
    assert found["images smaller than data.size=16, enlarged"] == (1, ["cat/clear.png"])
    assert found["images damaged"] == (1, ["dog/cut.png"])
    assert sum(found[f"{split} examples"][0] for split in ("train", "validation", "test")) == 43
    assert found["classes"] == (2, ["cat", "dog"])


def test_held_out_images_that_are_trained_on_are_named(tmp_path, capsys):
    folder = write_images(tmp_path, ["train/a/0.png", "train/a/1.png", "val/a/2.png", "test/a/3.png"])
    (folder / "test" / "a" / "3.png").write_bytes((folder / "train" / "a" / "1.png").read_bytes())
    assert listed(capsys, str(folder), ["data.size=8"])["test images that are training images, too"] == (
        1, ["test/a/3.png"],
    )  # fmt: skip


def test_what_training_refuses_is_listed_and_refused(tmp_path, capsys):
    folder = write_images(tmp_path, NAMES)
    (folder / "empty").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "cat" / "deep.png")
    with pytest.raises(UserError, match="class 'empty'"):
        check(str(folder), SHARES)
    assert "refused: has more than 8 bits a channel: convert it to 8: cat/deep.png" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(("write", "kind"), [(write_text, "text"), (write_recordings, "audio"), (write_npz, "npz")])
def test_the_kind_is_found_by_the_files(tmp_path, capsys, write, kind):
    path = write(tmp_path)
    options = {"text": ["data.context=8"], "audio": ["data.context=32"], "npz": []}[kind]
    assert guess(path) == kind and listed(capsys, str(path), options)["test examples"][0] > 0


def test_a_folder_without_data_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError):
            check(str(path))

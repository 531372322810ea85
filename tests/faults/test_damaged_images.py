"""Unreadable training images are named, counted and replaced up to a limit; held-out ones are refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mar
from mar import config
from mar.core.errors import UserError
from mar.data.folder import Folder, FolderOptions
from mar.likelihood.estimate import Estimator
from mar.run import train
from tests.cli.test_main import in_process
from tests.training.conftest import TINY

N = 12


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """N training images in two classes, image i of a constant i, and two images of each other split."""
    for split, n in (("train", N), ("val", 2), ("test", 2)):
        for i in range(n):
            file = tmp_path / split / ("a" if i < n // 2 else "b") / f"{i:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(file)
            os.utime(file, (0, 0))
    return tmp_path


def options(folder: Path, **changes) -> FolderOptions:
    return replace(FolderOptions(str(folder), size=8, colour="grey", damaged_limit=2), **changes)


def damage(folder: Path, *numbers: int, split: str = "train") -> None:
    """Change the content and not the time, as a disk does."""
    for number in numbers:
        file = next((folder / split).glob(f"*/{number:02d}.png"))
        file.write_bytes(file.read_bytes()[:40].ljust(file.stat().st_size, b"?"))
        os.utime(file, (0, 0))


def test_the_next_image_and_its_label_stand_in_and_the_damage_is_named_and_counted_once(images, capsys):
    damage(images, 4, 5)
    data = Folder.load(options(images, flip=True))
    for _ in range(2):
        x, label_B = data.train.batch(torch.tensor([3, 4, 5, 6, N + 5]))
        assert x[:, 0, 0, 0].tolist() == [3, 6, 6, 6, 6] and label_B.tolist() == [0, 1, 1, 1, 1]
    said = capsys.readouterr().out
    assert said.count("04.png is no readable image") == said.count("05.png is no readable image") == 1
    assert "1 of at most 2" in said and "2 of at most 2" in said


def test_one_damaged_image_too_many_is_refused_with_all_names(images):
    damage(images, 4, 5, 11)
    split = Folder.load(options(images)).train
    split.batch(torch.tensor([4, 5]))
    with pytest.raises(UserError, match=r"11\.png is no readable image .*damaged_limit=2; before it .*04.*05") as error:
        split.batch(torch.tensor([11]))
    assert "\n" not in str(error.value)


def test_the_last_image_is_followed_by_the_first(images):
    damage(images, N - 1)
    assert int(Folder.load(options(images)).train.batch(torch.tensor([N - 1]))[0].max()) == 0


def test_a_folder_of_damaged_images_alone_is_refused(images):
    damage(images, *range(N))
    with pytest.raises(UserError, match="is no readable image"):
        Folder.load(options(images, damaged_limit=10**6))


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_images_are_never_replaced(images, split):
    damage(images, 1, split=split)
    data = Folder.load(options(images))
    with pytest.raises(UserError, match=r"01\.png is no readable image"):
        data.split("validation" if split == "val" else "test").batch(torch.tensor([1]))


def test_a_run_goes_on_past_damaged_images_and_a_raised_limit_goes_on_past_more(images, tmp_path, capsys):
    damage(images, 2)
    recipe = [*TINY, "data=folder", f"data.path={images}", "data.size=8", "data.colour=grey", "data.damaged_limit=1"]
    train(config.read("digits", [*recipe, "train.iterations=5"]), tmp_path / "run")
    assert "02.png is no readable image" in capsys.readouterr().out
    damage(images, 3)
    with pytest.raises(UserError, match=r"damaged_limit=1"):
        train(config.read("digits", recipe), tmp_path / "run")
    train(config.read("digits", [*recipe, "data.damaged_limit=2"]), tmp_path / "run")
    assert "after iteration 5" in capsys.readouterr().out


def test_changed_data_are_refused_until_they_are_accepted(images, tmp_path):
    recipe = config.read(
        "digits", [*TINY, "data=folder", f"data.path={images}", "data.size=8", "data.colour=grey", "train.iterations=5"]
    )
    train(recipe, tmp_path / "run")
    (images / "train" / "a" / "00.png").unlink()
    with pytest.raises(UserError, match=r"the data of .* have changed since it began \(folder .*delete its data.json"):
        train(recipe, tmp_path / "run")
    warnings = mar.load(tmp_path / "run").nll(limit=1, estimator=Estimator(2)).warnings
    assert any("have changed since training" in warning for warning in warnings)
    (tmp_path / "run" / "data.json").unlink()
    train(recipe, tmp_path / "run")


def test_a_run_that_recorded_names_and_sizes_goes_on_and_records_the_content(images, tmp_path):
    recipe = config.read(
        "digits", [*TINY, "data=folder", f"data.path={images}", "data.size=8", "data.colour=grey", "train.iterations=5"]
    )
    train(recipe, tmp_path / "run")
    file, data = tmp_path / "run" / "data.json", Folder.load(options(images, damaged_limit=10))
    content = json.loads(file.read_text())
    assert content["fingerprint"] == data.fingerprint and "former" not in content
    file.write_text(json.dumps(content | {"fingerprint": data.former}))
    assert not any(
        "changed" in said for said in mar.load(tmp_path / "run").nll(limit=1, estimator=Estimator(2)).warnings
    )
    train(recipe, tmp_path / "run")
    assert json.loads(file.read_text()) == content


def test_data_that_moved_are_the_same_data(images, tmp_path):
    changes = [*TINY, "data=folder", "data.size=8", "data.colour=grey", "train.iterations=5"]
    train(config.read("digits", [*changes, f"data.path={images}"]), tmp_path / "run")
    for split in ("train", "val", "test"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        (images / split).rename(tmp_path / "moved" / split)
    train(config.read("digits", [*changes, f"data.path={tmp_path / 'moved'}"]), tmp_path / "run")
    assert len(mar.load(tmp_path / "run", data_path=tmp_path / "moved").data.test) > 0
    kept = sorted((tmp_path / "moved").glob("test/*/*"))[0]
    content = kept.read_bytes()
    Image.new("L", (8, 8), 200).save(kept)
    with pytest.raises(UserError, match="holds other data"):
        _ = mar.load(tmp_path / "run", data_path=tmp_path / "moved").data
    kept.write_bytes(content)
    (tmp_path / "moved").rename(tmp_path / "again")
    with pytest.raises(UserError, match="not a folder"):
        in_process("score", "nll", str(tmp_path / "run"), "-n", "2", "--plans", "random/equal:32")
    words = ("score", "nll", str(tmp_path / "run"), "-n", "2", "--plans", "random/equal:32", "--data-path")
    assert "wrote 1 JSON" in in_process(*words, str(tmp_path / "again"))

"""What does not fit together is refused in one line that says what would."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mar
from mar import config
from mar.core.errors import Unsupported, UserError
from mar.core.processes import Processes
from mar.data.base import TensorSplit
from mar.run import train
from mar.training.batches import Batches
from tests.training.conftest import TINY


def refused(match: str, *overrides: str, out: Path) -> None:
    with pytest.raises((UserError, Unsupported), match=match) as error:
        train(config.read("digits", [*TINY, *overrides]), out)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "run"
    train(config.read("digits", [*TINY, "train.iterations=1"]), path)
    return path


@pytest.fixture
def copied(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


def folder(path: Path, size: tuple[int, int]) -> list[str]:
    for split in ("train", "val", "test"):
        file = path / split / "a" / "0.png"
        file.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((size[1], size[0]), np.uint8)).save(file)
    return ["data=folder", f"data.path={path}", "data.colour=grey", "class_conditional=false"]


def test_a_checkpoint_of_another_model_is_refused(copied, tmp_path):
    other = tmp_path / "other"
    train(config.read("digits", [*TINY, "train.iterations=1", "network.decoder_width=24"]), other)
    shutil.rmtree(copied / "checkpoints")
    shutil.copytree(other / "checkpoints", copied / "checkpoints")
    with pytest.raises(UserError, match=r"holds another model: \d+ tensors disagree with the recipe, first '") as error:
        mar.load(copied)
    assert "\n" not in str(error.value)
    refused("holds another model", "train.iterations=2", out=copied)


def test_a_recipe_that_disagrees_with_the_weights_is_refused(copied):
    recipe = copied / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("encoder_width: 16", "encoder_width: 32"))
    with pytest.raises(UserError, match=r"tensors disagree with the recipe.*16.* in the file.*32.* in the recipe"):
        mar.load(copied)


def test_a_label_beyond_the_classes_is_named():
    split = TensorSplit(torch.zeros(4, 1), torch.tensor([0, 1, 7, 1]))
    batches = Batches(split, 0, 4, 1, 0, 1, torch.device("cpu"), n_classes=2)
    with pytest.raises(UserError, match=r"training example 2 has label 7, and classes are 0\.\.1"):
        batches.at(0)
    batches.close()


def test_a_class_that_a_run_does_not_have_is_refused(run):
    with pytest.raises(UserError, match=r"class 10 is out of range: this run has classes 0\.\.9"):
        mar.load(run).sample(1, labels=torch.tensor([10]))


def test_a_grid_that_patches_do_not_divide_is_refused(tmp_path):
    patches = ["tokenizer=patches", "tokenizer.size=16", "head=gaussian-mixture", "data=digits"]
    refused("patch", *patches, out=tmp_path / "run")


def test_images_that_are_not_square_are_cropped_to_their_centre(tmp_path):
    changes = [*TINY, *folder(tmp_path / "data", (12, 9)), "data.size=8", "train.iterations=1"]
    train(config.read("digits", changes), tmp_path / "run")
    assert mar.load(tmp_path / "run").spec.shape == (1, 8, 8)


def test_a_batch_too_small_for_its_processes_is_refused(tmp_path):
    refused("leaves some of 32 micro-batches", "train.accumulation=32", out=tmp_path / "run")


def test_a_longer_training_that_moves_the_learning_rate_says_so(copied, capsys):
    train(config.read("digits", [*TINY, "train.iterations=2"]), copied)
    assert "iterations were 1 and are 2: from here on the cosine learning rate" in capsys.readouterr().out


def test_a_run_is_never_called_shorter_than_it_is(copied, capsys):
    train(config.read("digits", [*TINY, "train.iterations=2"]), copied)
    written = (copied / "recipe.yaml").read_text()
    refused("has 2 iterations already, and 1 are asked for", "train.iterations=1", out=copied)
    assert (copied / "recipe.yaml").read_text() == written
    train(config.read("digits", [*TINY, "train.iterations=2"]), copied)


def test_accelerates_own_sharding_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"set train\.parallel=fsdp"):
        Processes()

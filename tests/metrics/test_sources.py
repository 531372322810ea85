"""What ``mar fid`` and ``mar fid-stats`` are pointed at."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import TensorSplit
from mar.metrics.fid import scorer_of
from mar.metrics.images import FeatureSettings, Images, images_of, open_source, read_statistics, write_statistics


@pytest.fixture
def folder(tmp_path, digits):
    """The first test digits as PNG files of 8 bits."""
    path = tmp_path / "folder"
    path.mkdir()
    for k, image in enumerate(images_of(digits, "test").bytes(torch.arange(60))):
        Image.fromarray(image[0].numpy()).save(path / f"{k:03d}.png")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_folder_is_its_images(folder, digits, tmp_path, brief_training):
    images = open_source(str(folder), like=digits.spec)
    shown = images_of(digits, "test").bytes(torch.arange(60))
    assert torch.equal(images.split.batch(torch.arange(60))[0], shown)
    scorer = scorer_of(images, digits.spec, FeatureSettings(), tmp_path / "features", digits)
    itself = TensorSplit(digits.test.x[:60])  # of 17 levels, the folder of 256
    assert scorer.score(Images("itself", itself, digits.spec)).fid == pytest.approx(0.0, abs=1e-6)
    assert images.identity != open_source(str(folder), like=DataSpec((3, 8, 8), 256)).identity


def test_the_noise_floor_is_never_the_images_that_are_compared_with(digits, tmp_path, brief_training):
    for split, floor in (("test", "train"), ("validation", "train"), ("train", "test")):
        named = open_source("digits", split)  # the same data set as the run's, read once more
        assert scorer_of(named, digits.spec, FeatureSettings(), tmp_path, digits).floor.name == floor
    write_statistics(scorer_of(named, digits.spec, FeatureSettings(), tmp_path).statistics, tmp_path / "real.npz")
    real = open_source(str(tmp_path / "real.npz"))
    assert scorer_of(real, digits.spec, FeatureSettings(), tmp_path, digits).floor.name == "test"


def test_statistics_of_a_data_set_are_read_back_as_a_source(tmp_path, digits, brief_training):
    source = open_source("digits", "train")
    write_statistics(scorer_of(source, digits.spec, FeatureSettings(), tmp_path).statistics, tmp_path / "real.npz")
    found = open_source(str(tmp_path / "real.npz"))
    assert found.name == "real" and found.n_images == len(digits.train)
    assert found.identity == open_source(str(tmp_path / "real.npz")).identity
    assert (found.mu_D == read_statistics(tmp_path / "real.npz").mu_D).all()


def test_a_damaged_image_is_never_replaced_by_another(folder, digits):
    (folder / "030.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"030\.png"):
        open_source(str(folder), like=digits.spec).split.batch(torch.arange(60))


def test_images_of_another_shape_and_unlabelled_ones_are_refused(folder, digits, tmp_path):
    colour = open_source(str(folder), like=DataSpec((3, 8, 8), 256))
    with pytest.raises(UserError, match=r"have shape \(3, 8, 8\)"):
        scorer_of(colour, digits.spec, FeatureSettings(), tmp_path, digits)
    with pytest.raises(UserError, match="--labelled"):
        scorer_of(colour, colour.spec, FeatureSettings(), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no images"):
        open_source(str(tmp_path / "empty"))

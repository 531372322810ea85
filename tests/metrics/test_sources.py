"""What ``mar fid`` and ``mar fid-stats`` are pointed at."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import TensorSplit
from mar.metrics.fid import scorer_of
from mar.metrics.generated import score_source
from mar.metrics.images import (
    RESIZING,
    FeatureSettings,
    Images,
    images_of,
    open_source,
    read_statistics,
    write_statistics,
)
from mar.metrics.store import Store
from mar.sampling.output import save_samples


def test_a_store_of_videos_holds_no_images(tmp_path):
    store = Store.create(tmp_path / "videos", {"plan": "raster"}, DataSpec((2, 1, 4, 4), 2, modality="video"))
    store.write(store.missing(2)[0], torch.zeros(2, 2, 1, 4, 4, dtype=torch.uint8), torch.tensor([-1, -1]))
    with pytest.raises(UserError, match="videos has examples of kind video"):
        score_source(str(store.path), None, str(store.path), "test", FeatureSettings(), None)


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


def test_what_mar_sample_writes_is_scored_without_its_contact_sheet(tmp_path, digits):
    x = digits.test.x[:40]
    save_samples(x, digits.spec, tmp_path / "samples", [x, x])
    assert {"grid.png", "generation.gif"} <= {file.name for file in (tmp_path / "samples").iterdir()}
    found = open_source(str(tmp_path / "samples"), like=digits.spec)
    assert torch.equal(found.bytes(torch.arange(40)), images_of(digits, "test").bytes(torch.arange(40)))
    assert len(found.split) == 40


def test_a_folder_is_known_by_its_content(folder, digits):
    before, file = open_source(str(folder), like=digits.spec).identity, folder / "000.png"
    shutil.copytree(folder, folder.parent / "copy")
    assert open_source(str(folder.parent / "copy"), like=digits.spec).identity == before
    state, image = file.stat(), bytearray(file.read_bytes())
    Image.fromarray(255 - np.asarray(Image.open(file))).save(file, compress_level=0)
    content = file.read_bytes()
    file.write_bytes(content[: len(image)].ljust(len(image), b"0"))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert open_source(str(folder), like=digits.spec).identity != before


@pytest.mark.parametrize("name", ["real", "real-v1.0", "~/real"])
def test_a_folder_to_compare_with_is_read_like_the_images(name, folder, tmp_path, brief_training, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / name.removeprefix("~/"))
    store = Store.create(tmp_path / "store", {"q": 1}, DataSpec((1, 8, 8), 17, 10))
    store.write(range(40), torch.randint(0, 17, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 10)
    settings = FeatureSettings("classifier", labelled="digits")
    (table,) = score_source("store", None, name, "test", settings, None).tables
    assert table.rows[0].fid.mean > 0


def test_the_side_of_a_data_set_of_images_is_the_one_asked_for(tmp_path):
    for k in range(60):
        file = tmp_path / "photographs" / "a" / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24, 20, 3), k, np.uint8)).save(file)
    source = f"folder:{tmp_path / 'photographs'}"
    sides = [open_source(source, "train", like).spec.shape[1] for like in (None, DataSpec((3, 12, 12), 256))]
    assert sides == [20, 12]


def test_statistics_say_the_side_of_their_images_and_others_are_refused(folder, digits, tmp_path, brief_training):
    real = scorer_of(open_source(str(folder), like=digits.spec), digits.spec, FeatureSettings(), tmp_path, digits)
    write_statistics(real.statistics, tmp_path / "real.npz")
    found = open_source(str(tmp_path / "real.npz"))
    assert (found.shape, found.resizing, found.extractor) == ((1, 8, 8), RESIZING, real.extractor.name)
    scorer_of(found, digits.spec, FeatureSettings(), tmp_path, digits)
    with pytest.raises(UserError, match=r"have shape \(1, 8, 8\), those to score \(3, 8, 8\)"):
        scorer_of(found, DataSpec((3, 8, 8), 256), FeatureSettings(), tmp_path, digits)
    stretched = replace(found, resizing="stretched")
    with pytest.raises(UserError, match="were stretched"):
        scorer_of(stretched, digits.spec, FeatureSettings(), tmp_path, digits)


def test_stores_of_one_question_and_other_images_are_told_apart(tmp_path):
    for name in ("a", "b"):
        store = Store.create(tmp_path / name, {"q": 1}, DataSpec((1, 2, 2), 17))
        store.write(range(9), torch.full((9, 1, 2, 2), ord(name) % 17, dtype=torch.uint8), torch.full((9,), -1))
    assert open_source(str(tmp_path / "a")).identity != open_source(str(tmp_path / "b")).identity


def test_pictures_of_hugging_face_are_scored_and_compared_with(tmp_path, pixels):
    datasets = pytest.importorskip("datasets")
    generator = np.random.default_rng(0)

    def parquet(name: str, *sides: int) -> str:
        pictures = [Image.fromarray(generator.integers(0, 256, (side, side), np.uint8)) for side in sides]
        features = datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict({"image": pictures}, features).to_parquet(str(tmp_path / f"{name}.parquet"))
        return f"hub:{tmp_path / name}.parquet"

    two, settings = parquet("two", *[2] * 200), FeatureSettings(pixels)
    same = score_source(two, None, two, "train", settings, tmp_path / "same.json")
    assert json.loads((tmp_path / "same.json").read_text())["generated"]["fid"] == pytest.approx(0.0, abs=1e-6)
    assert " images of hub:" in same.tables[0].title
    found = open_source(parquet("several", *[2, 3] * 10), "train", DataSpec((1, 2, 2), 256))
    assert found.spec.shape == (1, 2, 2) and found.resizing == RESIZING  # read at the size of the images to score

"""Data sets of the library datasets, from local files: pictures, texts and vectors, splits, classes, refusals."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.data.hub import Hub, HubOptions, from_splits
from mar.data.memory import in_memory
from tests.data.conftest import write_images

datasets = pytest.importorskip("datasets")
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 5, 6, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def table(n: int = 20, first: int = 0, names=("cat", "dog")):
    features = datasets.Features(img=datasets.Image(), label=datasets.ClassLabel(names=list(names)))
    cells = {
        "img": [{"bytes": png(PIXELS[i % 20]), "path": None} for i in range(first, first + n)],
        "label": [i % 2 for i in range(n)],
    }
    return datasets.Dataset.from_dict(cells, features=features)


def parquet(folder: Path, **splits) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        rows.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


def load(path: Path, **changes):
    return Hub.load(replace(HubOptions(str(path)), **changes))


def whole(split) -> tuple[np.ndarray, list[int] | None]:
    x, label = split.batch(torch.arange(len(split)))
    return x.permute(0, 2, 3, 1).numpy(), None if label is None else label.tolist()


def test_published_splits_and_class_names_are_those_of_the_data_set(tmp_path):
    data = load(parquet(tmp_path / "d", train=table(12), validation=table(3, 12), test=table(5, 15)))
    assert data.spec.shape == (3, 5, 6) and data.spec.class_names == ("cat", "dog") and not data.notes
    for split, (first, end) in {"train": (0, 12), "validation": (12, 15), "test": (15, 20)}.items():
        x, label = whole(data.split(split))
        assert np.array_equal(x, PIXELS[first:end]) and label == [i % 2 for i in range(end - first)]


def test_missing_splits_are_drawn_from_the_training_examples_once(tmp_path):
    folder = parquet(tmp_path / "d", train=table())
    data = load(folder, validation=0.2, test=0.1)
    parts = [whole(data.split(name)) for name in ("train", "validation", "test")]
    assert [len(x) for x, _ in parts] == [14, 4, 2] and set(data.notes) == {"validation", "test"}
    pairs = {(x.tobytes(), y) for xs, ys in parts for x, y in zip(xs, ys, strict=True)}
    assert pairs == {(PIXELS[i].tobytes(), i % 2) for i in range(20)}
    assert load(folder, validation=0.2, test=0.1).fingerprint == data.fingerprint
    assert load(folder, validation=0.2, test=0.2).fingerprint != data.fingerprint


def test_a_test_split_without_classes_is_left_out(tmp_path):
    hidden = table(5, 15).remove_columns("label")
    data = load(parquet(tmp_path / "d", train=table(12), validation=table(3, 12), test=hidden), test=0.0)
    assert np.array_equal(whole(data.test)[0], PIXELS[12:15])
    assert data.notes["published test"] == "the published test split is left out: it has no classes"


def test_folders_of_images_archives_and_saved_sets_give_the_same_pixels(tmp_path):
    for i, pixels in enumerate(PIXELS):
        file = tmp_path / "folder" / "train" / ("cat", "dog")[i % 2] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "train-0000.tar", "w") as tar:
        for i, pixels in enumerate(PIXELS):
            for suffix, content in (("png", png(pixels)), ("cls", str(i % 2).encode())):
                member = tarfile.TarInfo(f"{i:02d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    datasets.DatasetDict(train=table()).save_to_disk(tmp_path / "saved")
    table().to_parquet(tmp_path / "one.parquet")
    wanted = {(PIXELS[i].tobytes(), i % 2) for i in range(20)}
    for place in ("folder", "tars", "tars/train-0000.tar", "saved", "one.parquet"):
        data = load(tmp_path / place)
        parts = [whole(data.split(name)) for name in ("train", "validation", "test")]
        assert {(x.tobytes(), y) for xs, ys in parts for x, y in zip(xs, ys, strict=True)} == wanted, place
        assert data.spec.n_classes == 2


def test_the_fingerprint_follows_the_content_of_the_pictures(tmp_path):
    first = load(write_images(tmp_path / "d", [f"train/a/{i}.png" for i in range(8)]))
    again = load(write_images(tmp_path / "e", [f"train/a/{i}.png" for i in range(8)]))
    Image.new("RGB", (12, 10)).save(tmp_path / "e" / "train/a/3.png")
    assert first.fingerprint == again.fingerprint != load(tmp_path / "e").fingerprint


def test_pictures_take_the_size_and_colour_asked_for(tmp_path):
    folder = write_images(tmp_path / "d", ["train/0.png", "train/1.png", "train/2.png"], mode="L")
    Image.new("L", (30, 20)).save(folder / "train/3.png")
    with pytest.raises(UserError, match=r"the first 12x10: set data\.size"):
        for split in (data := load(folder)).train, data.validation, data.test:
            split.batch(torch.arange(len(split)))
    assert load(folder, size=8).spec.shape == (1, 8, 8)
    assert load(folder, size=8, colour="rgb").train.batch(torch.tensor([0]))[0].shape == (1, 3, 8, 8)


def test_texts_are_documents_and_lists_are_vectors(tmp_path):
    rows = datasets.Dataset.from_dict({"id": [*range(20)], "text": ["ab"[: 1 + i % 2] for i in range(20)]})
    data = load(parquet(tmp_path / "t", train=rows), context=4)
    assert data.spec.alphabet == ("a", "b") and data.spec.end == 2
    assert {tuple(x.flatten().tolist()) for x in data.train.batch(torch.arange(18))[0]} == {(0, 2, 2, 2), (0, 1, 2, 2)}
    rows = datasets.Dataset.from_dict({"v": [[0.5, i] for i in range(20)], "label": [str(i % 3) for i in range(20)]})
    data = load(parquet(tmp_path / "v", train=rows, test=rows))
    x, label = data.test.batch(torch.arange(20))
    assert data.spec.levels == 0 and data.spec.class_names == ("0", "1", "2")
    assert x[:, 0, 0].tolist() == [[0.5, i] for i in range(20)] and label.tolist() == [i % 3 for i in range(20)]


def test_the_same_from_python(tmp_path):
    rows = table()
    data = in_memory(rows, test=rows)
    assert data.spec.class_names == ("cat", "dog") and np.array_equal(whole(data.test)[0], PIXELS)
    data = in_memory(datasets.DatasetDict(train=table(12), validation=table(3, 12), test=table(5, 15)))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [12, 3, 5]
    texts = datasets.Dataset.from_dict({"text": ["to be", "or not"] * 10})
    assert in_memory(texts).spec.modality == "text"
    assert from_splits({"train": rows}, HubOptions("here")).spec.n_classes == 2


def broken(tmp_path: Path) -> dict[str, tuple[Path, dict, str]]:
    one = parquet(tmp_path / "one", train=table())
    cut = parquet(tmp_path / "cut", train=table()) / "train-00000-of-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:200])
    strange = datasets.Dataset.from_dict({"v": [[1, 2]] * 4, "label": ["a", "b", "a", "b"]})
    other = datasets.Dataset.from_dict({"v": [[1, 2]] * 4, "label": ["a", "b", "c", "b"]})
    bad = table(8).cast_column("img", datasets.Image(decode=False)).to_list()
    for row in bad:
        row["img"]["bytes"] = row["img"]["bytes"][:40]
    bad = datasets.Dataset.from_list(bad).cast_column("img", datasets.Image())
    return {
        "truncated": (cut.parent, {}, "is no data set that datasets loads"),
        "no train": (parquet(tmp_path / "none", test=table()), {}, r"no split called train \(it has test\)"),
        "no column": (one, {"column": "image"}, "img"),
        "no label": (one, {"label": "labels"}, "label"),
        "numbers": (one, {"column": "label"}, "holds pictures, texts or lists"),
        "class": (
            parquet(tmp_path / "c", train=strange, test=other),
            {},
            "class 'c' of its test split has no training",
        ),
        "picture": (parquet(tmp_path / "p", train=bad), {}, "picture 0 of the train split of .* is no readable image"),
        "suffix": (Path(__file__), {}, "suffix"),
    }


@pytest.mark.parametrize(
    "case", ["truncated", "no train", "no column", "no label", "numbers", "class", "picture", "suffix"]
)
def test_what_is_no_data_set_is_refused_in_one_line(tmp_path, case):
    path, changes, words = broken(tmp_path)[case]
    with pytest.raises(UserError, match=words) as error:
        load(path, **changes)
    assert "\n" not in str(error.value)

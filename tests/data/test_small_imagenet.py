"""Both versions of downsampled ImageNet from small files in their published forms."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.data.small_imagenet import Chrabaszcz, Oord, SmallOptions

X = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
LABELS = [1, 1000, 3, 4, 5, 6, 7, 8, 9]


def options(folder, validation=2, size=8):
    return SmallOptions(str(folder), size, validation)


def pixels(split):
    return split.batch(torch.arange(len(split)))[0].numpy()


@pytest.mark.parametrize("form", ["npz", "pickle"])
def test_the_labelled_version_keeps_pixels_and_classes(tmp_path, form):
    (tmp_path / "inside").mkdir()
    for name, own in (
        ("train_data_batch_1", slice(0, 3)),
        ("train_data_batch_2", slice(3, 7)),
        ("val_data", slice(7, 9)),
    ):
        content = {"data": X[own].reshape(-1, 192), "labels": LABELS[own], "mean": X[0].ravel() / 255}
        if form == "npz":
            np.savez(tmp_path / "inside" / f"{name}.npz", **content)
        else:
            (tmp_path / "inside" / name).write_bytes(pickle.dumps(content))
    data = Chrabaszcz.load(options(tmp_path))
    assert data.spec.n_classes == 1000 and data.spec.shape == (3, 8, 8)
    assert "2 of the 10" in data.notes["batches"]
    x, label = data.test.batch(torch.tensor([1, 0]))
    assert np.array_equal(x.numpy(), X[[8, 7]]) and label.tolist() == [8, 7]
    pairs = set()
    for split in (data.train, data.validation):
        x, label = split.batch(torch.arange(len(split)))
        pairs |= {(a.tobytes(), int(b)) for a, b in zip(x.numpy(), label, strict=True)}
    assert pairs == {(X[i].tobytes(), LABELS[i] - 1) for i in range(7)}
    assert len(data.validation) == 2 and Chrabaszcz.load(options(tmp_path, 0)).notes["validation"]


def test_the_version_of_pixelrnn_reads_folders_and_arrays(tmp_path):
    for name, own in (("train_8x8", range(7)), ("valid_8x8", range(7, 9))):
        (tmp_path / "png" / name).mkdir(parents=True)
        for i in own:
            Image.fromarray(X[i].transpose(1, 2, 0)).save(tmp_path / "png" / name / f"{i:07d}.png")
        for form, axes in (("first", (0, 1, 2, 3)), ("last", (0, 2, 3, 1))):
            (tmp_path / form).mkdir(exist_ok=True)
            np.save(tmp_path / form / f"{name}.npy", X[list(own)].transpose(axes))
    loaded = [Oord.load(options(tmp_path / form)) for form in ("png", "first", "last")]
    for data in loaded:
        assert data.spec.n_classes == 0 and np.array_equal(pixels(data.test), X[7:])
        for split in ("train", "validation"):
            assert np.array_equal(pixels(data.split(split)), pixels(loaded[0].split(split)))
    assert {x.tobytes() for d in loaded[:1] for s in (d.train, d.validation) for x in pixels(s)} == {
        x.tobytes() for x in X[:7]
    }


def test_what_is_missing_or_of_another_size_is_refused_in_one_line(tmp_path):
    np.savez(tmp_path / "train_data_batch_2.npz", data=X[:2].reshape(2, -1), labels=[1, 2])
    cases = [
        (Oord, 8, "no folder train_8x8 and no train_8x8.npy"),
        (Chrabaszcz, 8, "lacks train_data_batch_N.npz, or val_data"),
    ]
    for source, size, words in cases:
        with pytest.raises(UserError, match=words):
            source.load(options(tmp_path, size=size))
    for name in ("train_data_batch_1", "val_data"):
        np.savez(tmp_path / f"{name}.npz", data=X[:2].reshape(2, -1), labels=[1, 2])
    with pytest.raises(
        UserError, match=r"does not hold 32x32 images with classes 1 to 1000 \(data\.size\) \(\(2, 192\)"
    ):
        Chrabaszcz.load(options(tmp_path, size=32))
    np.savez(tmp_path / "val_data.npz", data=X[:2].reshape(2, -1), labels=[0, 2])
    with pytest.raises(UserError, match="a label 0"):
        Chrabaszcz.load(options(tmp_path))
    (tmp_path / "val_data.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"val_data\.npz does not hold"):
        Chrabaszcz.load(options(tmp_path))
    for name in ("train_8x8", "valid_8x8"):
        np.save(tmp_path / f"{name}.npy", X.astype(np.float32))
    with pytest.raises(UserError, match="values of float32"):
        Oord.load(options(tmp_path))

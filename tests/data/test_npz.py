"""Vectors from .npz files: what the splits hold, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mar.core.errors import UserError
from mar.data.npz import Npz, NpzOptions


def load(folder, train, valid, test, names=("train_data", "valid_data", "test_data"), **options):
    file = folder / "some.npz"
    np.savez(file, **dict(zip(names, (train, valid, test), strict=True)), inputsize=3)
    return Npz.load(NpzOptions(path=str(file), **options))


def table(n, values=2, dtype=np.uint8):
    return (np.arange(3 * n).reshape(n, 3) % values).astype(dtype)


@pytest.mark.parametrize("names", [("train_data", "valid_data", "test_data"), ("train", "validation", "test")])
def test_splits_are_the_published_ones_in_their_order(tmp_path, names):
    data = load(tmp_path, table(6), table(2), 1 - table(4), names)
    assert data.spec.levels == 2 and data.spec.modality == "vector" and data.spec.shape == (1, 1, 3)
    for split, array in (("train", table(6)), ("validation", table(2)), ("test", 1 - table(4))):
        x, label = data.split(split).batch(torch.arange(len(array)))
        assert label is None and x.dtype == torch.uint8 and x[:, 0, 0].tolist() == array.tolist()


def test_levels_are_those_of_every_split_and_may_exceed_256(tmp_path):
    data = load(tmp_path, table(4), table(4), 300 + table(4, dtype=np.int64))
    assert data.spec.levels == 302
    assert int(data.test.batch(torch.arange(4))[0].max()) == 301


def test_floating_point_numbers_are_real_unless_levels_are_given(tmp_path):
    arrays = [table(4, dtype=np.float32)] * 3
    real = load(tmp_path, *arrays)
    assert real.spec.levels == 0 and real.train.batch(torch.arange(4))[0].dtype == torch.float32
    whole = load(tmp_path, *arrays, levels=2)
    assert whole.spec.levels == 2 and whole.train.batch(torch.arange(4))[0].dtype == torch.uint8


BROKEN = [
    ((table(4), table(4), table(4)[:, :2]), {}, "differ in width"),
    ((table(4), table(0), table(4)), {}, "validation split is empty"),
    ((table(4), table(4), -table(4, dtype=np.int64)), {}, r"test split has values other than 0\.\.1"),
    ((table(4) + 0.5, table(4), table(4)), {"levels": 2}, "train split has values other than"),
    ((table(4), table(4), table(4) * np.nan), {}, "test split has values that are not finite"),
    ((table(4).astype(str), table(4), table(4)), {}, "no numbers"),
]


@pytest.mark.parametrize(("arrays", "options", "words"), BROKEN, ids=[words for _, _, words in BROKEN])
def test_unfit_arrays_are_refused_by_split(tmp_path, arrays, options, words):
    with pytest.raises(UserError, match=words) as error:
        load(tmp_path, *arrays, **options)
    assert "some.npz" in str(error.value) and "\n" not in str(error.value)


def test_a_file_without_a_split_or_damaged_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no array of the validation split \(it has train, other, test"):
        load(tmp_path, table(4), table(4), table(4), ("train", "other", "test"))
    whole = (tmp_path / "some.npz").read_bytes()
    for raw in (b"not a zip file", whole[: len(whole) // 2], b""):
        (tmp_path / "some.npz").write_bytes(raw)
        with pytest.raises(UserError, match=r"some\.npz does not hold an \.npz file with arrays"):
            Npz.load(NpzOptions(path=str(tmp_path / "some.npz")))

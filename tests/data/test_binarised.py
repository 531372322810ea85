"""Images binarised as they are read, and the MATLAB files of Omniglot and the silhouettes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.io import savemat

from mar.core.errors import UserError
from mar.data.base import Binarised
from mar.data.mat import Omniglot, OmniglotOptions, Silhouettes, SilhouettesOptions
from mar.data.mnist import DynamicMnist, DynamicOptions, Mnist
from mar.training.batches import Batches, examples
from tests.data.conftest import write_idx, write_mat


def test_ones_are_as_frequent_as_the_probabilities_say():
    p = torch.tensor([0.0, 1.0, 0.25, 0.7]).expand(4000, 4)[:, None, None]
    mean = Binarised(p, None, 0, "train").batch(torch.arange(4000))[0].float().mean((0, 1, 2))
    assert mean[:2].tolist() == [0.0, 1.0]
    assert (mean[2:] - p[0, 0, 0, 2:]).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_draws_depend_on_seed_split_example_and_epoch_alone():
    p = torch.full((3, 1, 8, 8), 0.5)
    split, two, at = Binarised(p, None, 0, "train"), torch.tensor([2, 0]), torch.arange(3)
    x = split.batch(at)[0]
    assert torch.equal(split.batch(two)[0], x[two]) and not torch.equal(x[0], x[1])
    assert torch.equal(split.training_batch(two, torch.tensor([0, 4]))[0][0], x[2])
    others = [split.training_batch(at, at * 0 + 1)[0], Binarised(p, None, 1, "train").batch(at)[0]]
    others.append(Binarised(p, None, 0, "test").batch(at)[0])
    assert len({x.numpy().tobytes() for x in (x, *others)}) == 4


def test_training_sees_a_new_draw_in_each_epoch_and_the_same_after_a_restart(tmp_path):
    data = DynamicMnist.load(DynamicOptions(str(write_idx(tmp_path)), validation=3))
    grey = Mnist.load(Mnist.Options(str(tmp_path), 3))
    assert data.spec.levels == 2 and data.spec.class_names == grey.spec.class_names
    assert data.fingerprint != grey.fingerprint and torch.equal(data.test.label_N, grey.test.label)

    def of_epochs(n):
        batches = Batches(data.train, 5, 9, 1, 0, 1, torch.device("cpu"))  # nine examples: an iteration is an epoch
        try:
            return [batches.at(k)[0].x[examples(5, 9 * k, 9, 9).argsort()] for k in n]
        finally:
            batches.close()

    first, second, third = of_epochs(range(3))
    assert not torch.equal(first, second) and torch.equal(of_epochs([2])[0], third)
    assert torch.equal(first, data.train.batch(torch.arange(9))[0])
    p = grey.train.x / 255.0
    assert (first[p == 0] == 0).all() and (third[p == 1] == 1).all()


def test_omniglot_is_transposed_cut_and_binarised(tmp_path):
    values = np.random.default_rng(0).random((784, 5)).round()  # probabilities 0 and 1
    savemat(tmp_path / "chardata.mat", {"data": values, "testdata": 1 - values})
    data = Omniglot.load(OmniglotOptions(str(tmp_path), validation=2))
    seen = [s.batch(torch.arange(len(s)))[0][:, 0].numpy() for s in (data.train, data.validation, data.test)]
    upright = values.T.reshape(5, 28, 28).transpose(0, 2, 1)
    assert np.array_equal(np.concatenate(seen[:2]), upright) and np.array_equal(seen[2], 1 - upright)
    assert [len(s) for s in seen] == [3, 2, 5] and data.spec.n_classes == 0


def test_silhouettes_keep_their_splits_and_classes(tmp_path):
    rng = np.random.default_rng(8)
    rows = rng.integers(0, 2, (4, 784), dtype=np.uint8)
    data = Silhouettes.load(SilhouettesOptions(str(write_mat(tmp_path, True))))
    assert data.spec.class_names == ("ant", "bee", "cat")
    assert np.array_equal(data.train.x[:, 0].numpy(), rows.reshape(4, 28, 28).transpose(0, 2, 1))
    assert data.test.label.tolist() == [0, 1, 2, 2]


def test_broken_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"chardata\.mat cannot be read"):
        Omniglot.load(OmniglotOptions(str(tmp_path)))
    for content, words in (
        ({"data": np.zeros((784, 3))}, "it has no array testdata"),
        ({"data": np.zeros((100, 3)), "testdata": np.zeros((784, 3))}, "28x28 values"),
        ({"data": np.zeros((784, 3)) + 7, "testdata": np.zeros((784, 3))}, r"in \[0, 1\]"),
        ({"data": np.zeros((784, 3)), "testdata": np.zeros((784, 3))}, "leaves none of 3"),
    ):
        savemat(tmp_path / "chardata.mat", content)
        with pytest.raises(UserError, match=words) as error:
            Omniglot.load(OmniglotOptions(str(tmp_path), validation=3))
        assert "\n" not in str(error.value)
    file = tmp_path / "chardata.mat"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(UserError, match="should hold the arrays"):
        Omniglot.load(OmniglotOptions(str(tmp_path)))

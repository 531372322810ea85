"""Claims about every registered kind of data set."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mar.core.errors import UserError
from mar.data import DATA
from mar.data.base import fingerprint

SPLITS = ("train", "validation", "test")


def contents(data):
    return [data.split(name).batch(torch.arange(len(data.split(name)))) for name in SPLITS]


def test_loading_twice_gives_the_same_examples_and_fingerprint(source):
    cls, options = source
    first, second = cls.load(options), cls.load(options)
    assert first.fingerprint == second.fingerprint and first.spec == second.spec
    for (x, label), (x_again, label_again) in zip(contents(first), contents(second), strict=True):
        assert torch.equal(x, x_again)
        assert label is label_again is None or torch.equal(label, label_again)


def test_examples_are_what_the_spec_says(source):
    cls, options = source
    data = cls.load(options)
    assert data.name == cls.name
    for x, label in contents(data):
        assert len(x) > 0 and x.dtype == torch.uint8 and tuple(x.shape[1:]) == data.spec.shape
        assert int(x.max()) < data.spec.levels
        if data.spec.n_classes:
            assert label.dtype == torch.int64 and int(label.min()) >= 0 and int(label.max()) < data.spec.n_classes
            assert len(data.spec.class_names) == data.spec.n_classes
        else:
            assert label is None


def test_a_batch_is_the_examples_asked_for_in_their_order(source):
    cls, options = source
    split = cls.load(options).train
    every, labels = split.batch(torch.arange(len(split)))
    index = torch.tensor([len(split) - 1, 0, 2, 0])
    x, label = split.batch(index)
    assert torch.equal(x, every[index])
    assert labels is None or torch.equal(label, labels[index])


def test_a_missing_path_is_asked_for_by_name(source):
    cls, options = source
    if not hasattr(options, "path"):
        pytest.skip("embedded")
    for path, words in (("", "data.path is not set"), ("/nowhere/at/all", "is not a (folder|file)")):
        with pytest.raises(UserError, match=words) as error:
            cls.load(dataclasses.replace(options, path=path))
        assert "\n" not in str(error.value)


def test_the_fingerprint_depends_on_every_value_and_on_shapes():
    x = torch.arange(6, dtype=torch.uint8)
    changed = x.clone()
    changed[5] = 0
    others = [fingerprint(changed), fingerprint(x.reshape(2, 3)), fingerprint(x, None), fingerprint(x.long())]
    assert len({fingerprint(x), *others}) == 5


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), float("-inf"), 10**20])
def test_numbers_out_of_bounds_are_refused_in_one_line(source, value):
    cls, options = source
    numbers = [field.name for field in dataclasses.fields(options) if field.type in ("int", "float")]
    for name in numbers:
        with pytest.raises(UserError, match=name) as error:
            DATA.options(cls.name, dataclasses.asdict(options) | {name: value})
        assert "\n" not in str(error.value)

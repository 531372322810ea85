from __future__ import annotations

import pytest
import torch

from mar.core.errors import UserError
from mar.data.base import fingerprint
from mar.data.digits import Digits, DigitsOptions

# recorded once: a change here changes every figure on digits
FINGERPRINT = "a46b1ee4717d0ce44215dc74a7c775f75b2f8c67b0ed75d6fdddac13756d1493"
TEST_FINGERPRINT = "8cb5300b55c294fd37bf79fc63375d460d8afd25c243fd49cd9f4cb8fec8d1a5"


def test_the_default_split_is_the_recorded_one():
    data = Digits.load(DigitsOptions())
    assert [len(data.train), len(data.validation), len(data.test)] == [1365, 72, 360]
    assert data.fingerprint == FINGERPRINT


def test_test_examples_never_depend_on_the_validation_option():
    for validation in (1, 72, 300):
        data = Digits.load(DigitsOptions(validation=validation))
        assert len(data.train) + len(data.validation) == 1437 and len(data.validation) == validation
        assert fingerprint(data.test.x, data.test.label) == TEST_FINGERPRINT


def test_together_the_splits_are_the_whole_data_set_with_its_labels():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    data = Digits.load(DigitsOptions())
    parts = [data.train, data.validation, data.test]
    rows = torch.cat([torch.cat([s.x.flatten(1).long(), s.label[:, None]], 1) for s in parts])
    expected = torch.cat([torch.tensor(pixels).long(), torch.tensor(labels)[:, None]], 1)
    assert sorted(rows.tolist()) == sorted(expected.tolist())


def test_every_class_is_about_equally_often_in_the_test_split():
    counts = Digits.load(DigitsOptions()).test.label.bincount(minlength=10)
    assert counts.min() >= 20 and counts.max() <= 55  # 36 expected


def test_an_impossible_validation_size_is_refused():
    with pytest.raises(UserError, match=r"1\.\.1000"):
        DigitsOptions(validation=0)

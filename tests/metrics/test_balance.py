from __future__ import annotations

import pytest
import torch

from mar.data.base import TensorSplit
from mar.metrics.fid import score_images


def test_balanced_and_unbalanced_classes_are_told_apart_and_labels_checked(digits, cache):
    train = digits.train
    real = score_images(train, digits, cache).generated.balance
    assert sum(real.counts) == len(train) and real.agreement > 0.99 and real.p_value > 0.01
    few = train.label < 5
    half = score_images(TensorSplit(train.x[few], (train.label[few] + 1) % 10), digits, cache).generated.balance
    assert half.chi2 > 0.9 * few.sum() and half.p_value < 1e-6  # χ² of half the classes alone is N
    assert half.agreement < 0.02
    expected = few.sum().item() / 10
    assert half.chi2 == pytest.approx(sum((count - expected) ** 2 / expected for count in half.counts))


def test_images_without_labels_have_counts_and_no_agreement(digits, cache):
    unlabelled = score_images(digits.test.x, digits, cache).generated.balance
    none = score_images(TensorSplit(digits.test.x, torch.full((360,), -1)), digits, cache).generated.balance
    assert unlabelled.agreement is None and none == unlabelled

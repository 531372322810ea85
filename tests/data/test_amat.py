from __future__ import annotations

import gzip
import time

import numpy as np
import pytest
import torch

from mar.core.errors import UserError
from mar.data.mnist import AmatOptions, BinarizedMnist, parse_amat

TRAIN = "binarized_mnist_train.amat"


@pytest.mark.parametrize("text", ["0 1 1\n1 0 0\n", "0 1 1 \n1 0 0 \n", "0 1 1\r\n1 0 0", "\n 0\t1 1\n1 0 0\n\n"])
def test_values_are_read_whatever_white_space_stands_between(text):
    assert parse_amat(text.encode(), 3).tolist() == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0 1 2\n", "holds '2'"),
        ("0 1 .5\n", r"holds '\.'"),
        ("0 1 -1\n", "holds '-'"),
        ("0 11\n", "several digits"),
        ("", "0 values"),
        ("0 1 1\n1 0", "5 values, which is not a positive multiple of 3"),
        ("0 1\n1 1 0 0\n", "lines do not have 3 values"),
        ("0 1 1 1 0 0\n", "lines do not have 3 values"),
        ("0 1 1\n1\n0 0\n", "lines do not have 3 values"),
    ],
)
def test_text_that_is_no_binary_matrix_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse_amat(text.encode(), 3)


def test_parsing_agrees_with_numpy(files):
    file = files.amat(files.root) / f"{TRAIN}.gz"
    data = BinarizedMnist.load(AmatOptions(str(files.root)))
    assert np.array_equal(data.train.x.flatten(1).numpy(), np.loadtxt(file))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: gzip.compress(raw)[:-9], "truncated or damaged"),
        (lambda raw: raw[:-100], "not a positive multiple of 784"),
        (lambda raw: b"<html>", "holds '<'"),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected_and_where_to_get_it(files, change, why):
    file = files.amat(files.root) / f"{TRAIN}.gz"
    file.write_bytes(change(gzip.decompress(file.read_bytes())))
    with pytest.raises(UserError, match=why) as error:
        BinarizedMnist.load(AmatOptions(str(files.root)))
    message = str(error.value)
    assert str(file) in message and "50,000 lines of 784" in message and "larocheh" in message and "\n" not in message


def test_a_missing_file_is_named(files):
    (files.amat(files.root) / "binarized_mnist_valid.amat.gz").unlink()
    with pytest.raises(UserError, match=r"binarized_mnist_valid\.amat\(\.gz\) is not in") as error:
        BinarizedMnist.load(AmatOptions(str(files.root)))
    assert "10,000 lines" in str(error.value)


def test_the_real_files_are_the_published_ones_and_quickly_read(real_data):
    start = time.perf_counter()
    data = BinarizedMnist.load(AmatOptions(str(real_data)))
    seconds = time.perf_counter() - start
    assert (len(data.train), len(data.validation), len(data.test)) == (50_000, 10_000, 10_000)
    assert data.notes == {} and data.spec.levels == 2 and data.spec.n_classes == 0
    p = torch.cat([data.train.x, data.validation.x]).double().mean(0).clamp(1e-6, 1 - 1e-6)
    x = data.test.x.double()
    nats = -(x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3)).mean()
    assert nats.item() == pytest.approx(206.0, abs=1.0)  # independent pixels
    assert seconds < 30  # about 3 s when the machine is quiet

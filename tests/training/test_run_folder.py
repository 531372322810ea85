"""What a tokenizer is fitted on."""

from __future__ import annotations

from itertools import islice

import torch

from mar import config
from mar.core.spec import DataSpec
from mar.data.base import About, Data, TensorSplit
from mar.run import to_measure
from mar.training.run_folder import RunFolder


def test_a_tokenizer_is_fitted_on_all_classes_of_a_sorted_data_set():
    n = 25_000
    split = TensorSplit((torch.arange(n) * 10 // n).reshape(n, 1, 1, 1).to(torch.uint8))  # one class after the other
    data = Data("sorted", DataSpec((1, 1, 1), 10), split, split, split, "")
    seen = torch.cat([*to_measure(data)])
    assert len(seen) == 10_000 and seen.unique(return_counts=True)[1].tolist() == [1000] * 10
    few = torch.cat([*islice(to_measure(data), 2)])  # as many as kl reads
    assert few.unique(return_counts=True)[1].tolist() == [100] * 10


def test_a_small_data_set_is_measured_whole():
    split = TensorSplit(torch.arange(1365).reshape(-1, 1, 1, 1))
    data = Data("small", DataSpec((1, 1, 1), 2000), split, split, split, "")
    seen = torch.cat([*to_measure(data)])
    assert torch.equal(seen.flatten().sort().values, torch.arange(1365))


def test_a_run_on_a_cache_goes_on_where_the_cache_and_its_images_have_moved(tmp_path):
    about = About("cache", DataSpec((1, 8, 8), 256), "same")
    for where in ("here", "there"):
        data = {"kind": "cache", "path": where, "images": where}
        RunFolder(tmp_path).start(config.parse({"data": data}), about, computes={})

"""Data sets in memory: every form gives the same examples, levels and classes are found, others are refused.

N examples
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from mar.core.errors import UserError
from mar.data.base import Data
from mar.data.memory import in_memory

X = torch.randint(0, 256, (20, 3, 4, 5), generator=torch.Generator().manual_seed(0))
X[0, 0, 0, 0] = 255
Y = torch.arange(20) % 3


def everything(data: Data) -> list[torch.Tensor]:
    return [t for split in (data.train, data.validation, data.test) for t in split.batch(torch.arange(len(split)))]


@pytest.mark.parametrize(
    "form",
    [
        (X.to(torch.uint8), Y),
        (X.permute(0, 2, 3, 1).numpy().astype(np.uint8), Y.numpy()),
        TensorDataset(X.to(torch.uint8), Y),
        TensorDataset(X.float() / 255.0, Y),
        [(Image.fromarray(x.permute(1, 2, 0).numpy().astype(np.uint8)), int(y)) for x, y in zip(X, Y, strict=True)],
        [{"id": 7, "image": x.permute(1, 2, 0).numpy(), "label": int(y)} for x, y in zip(X, Y, strict=True)],
    ],
    ids=["tensors", "arrays", "dataset", "floats", "pictures", "rows"],
)
def test_every_form_gives_the_same_examples(form):
    data = in_memory(form)
    assert data.spec.shape == (3, 4, 5) and data.spec.levels == 256 and data.spec.n_classes == 3
    assert [len(s) for s in (data.train, data.validation, data.test)] == [16, 2, 2]
    assert all(torch.equal(a, b) for a, b in zip(everything(data), everything(in_memory((X, Y))), strict=True))
    assert data.fingerprint == in_memory((X, Y)).fingerprint
    pairs = {(tuple(x.flatten().tolist()), int(y)) for x, y in zip(X, Y, strict=True)}
    whole = everything(data)
    kept = {
        (tuple(x.flatten().tolist()), int(y)) for k in (0, 2, 4) for x, y in zip(whole[k], whole[k + 1], strict=True)
    }
    assert kept == pairs


def test_levels_are_the_least_power_of_two_above_the_data_or_as_said():
    assert in_memory(X % 2).spec.levels == 2
    assert in_memory(X % 17).spec.levels == 32 and in_memory(X % 17, levels=17).spec.levels == 17
    with pytest.raises(UserError, match="too few"):
        in_memory(X, levels=255)


def test_images_without_classes_and_given_splits():
    data = in_memory(X[:10], validation=X[10:12], test=X[12:])
    assert data.spec.n_classes == 0 and (len(data.train), len(data.validation), len(data.test)) == (10, 2, 8)
    assert torch.equal(data.test.batch(torch.arange(8))[0], X[12:].to(torch.uint8))


@pytest.mark.parametrize(
    "source, said",
    [
        (X.float(), "quantise"),
        (X - 300, "from 0 on"),
        (X[0, 0], "images are"),
        ([{"picture": X[0]}], "name it"),
        ([X[0], X[1, :, :2]], "crop or resize"),
        ([], "no examples"),
        (X[:1], "too few"),
    ],
)
def test_what_is_no_data_set_is_refused(source, said):
    with pytest.raises(UserError, match=said):
        in_memory(source)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "CMYK", "YCbCr"])
def test_pictures_are_read_as_those_of_a_folder(mode):
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert(mode)
    data = in_memory([(red, 0)] * 20)
    assert data.spec.shape == (3, 8, 8) and data.spec.levels == 256
    red, green, blue = data.train.x.float().mean((0, 2, 3)).tolist()
    assert red > 250 and max(green, blue) < 5


def test_transparent_pictures_are_shown_over_white():
    data = in_memory([Image.new("LA", (8, 8), (0, 0))] * 20)
    assert data.spec.shape == (1, 8, 8) and (data.train.x == 255).all()

from __future__ import annotations

import pytest
import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import TensorSplit
from mar.metrics.images import Images, check_images, requantise


@pytest.mark.parametrize("levels", [2, 3, 16, 17, 256])
def test_levels_span_the_whole_byte_and_come_back(levels):
    x = torch.arange(levels)
    byte = requantise(x, levels, 256)
    assert byte.dtype == torch.uint8 and byte[0] == 0 and byte[-1] == 255
    assert torch.equal(byte.double(), (x.double() * 255 / (levels - 1) + 0.5).floor())
    assert torch.equal(requantise(byte, 256, levels).long(), x)


def test_two_levels_are_the_threshold_at_one_half():
    assert requantise(torch.tensor([0, 127, 128, 255], dtype=torch.uint8), 256, 2).tolist() == [0, 0, 1, 1]


def test_grey_becomes_rgb_by_repetition():
    x = torch.tensor([0, 8, 16], dtype=torch.uint8).reshape(3, 1, 1, 1)
    images = Images("grey", TensorSplit(x), DataSpec((1, 1, 1), 17)).bytes(torch.arange(3), rgb=True)
    assert [image.flatten().tolist() for image in images] == [[0] * 3, [128] * 3, [255] * 3]


def test_chosen_examples_keep_their_order():
    x = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
    images = Images("chosen", TensorSplit(x), DataSpec((1, 1, 1), 256)).bytes(torch.tensor([3, 1]))
    assert images.flatten().tolist() == [3, 1]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((1, 1, 2, 2), 17), "levels 0..16"),
        (torch.full((1, 1, 2, 2), -1), "levels 0..16"),
        (torch.zeros(1, 1, 2, 3), "shape"),
    ],
)
def test_images_outside_the_data_are_refused(x, message):
    with pytest.raises(UserError, match=message):
        Images("wrong", TensorSplit(x.int()), DataSpec((1, 2, 2), 17)).bytes(torch.tensor([0]))


@pytest.mark.parametrize("spec", [DataSpec((16,), 2), DataSpec((2, 4, 4), 2), DataSpec((1, 4, 4), 0)])
def test_data_that_are_not_images_are_refused(spec):
    with pytest.raises(UserError, match="FID needs images"):
        check_images(spec, "this")


def test_windows_of_sound_and_text_are_no_images():
    for modality in ("audio", "text", "vector"):
        with pytest.raises(UserError, match=f"of kind {modality}"):
            check_images(DataSpec((1, 1, 256), 256, 10, modality=modality), "it")  # type: ignore[arg-type]

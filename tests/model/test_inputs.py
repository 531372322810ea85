"""Examples and labels from Python: converted where they mean one thing only, refused in one line otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.model.inputs import classes_of, examples_of

DIGITS, COLOUR, BINARY, VECTORS = (
    DataSpec((1, 8, 8), 17, 10), DataSpec((3, 8, 8), 256), DataSpec((1, 4, 4), 2), DataSpec((1, 1, 6), 0),
)  # fmt: skip
LEVELS = torch.arange(4 * 64).reshape(4, 1, 8, 8).remainder(17).to(torch.uint8)
PHOTOS = torch.arange(2 * 3 * 64).reshape(2, 3, 8, 8).remainder(256).to(torch.uint8)


@pytest.mark.parametrize(
    "given",
    [
        LEVELS,
        LEVELS.long(),
        LEVELS.float(),
        LEVELS.float() / 16,
        LEVELS.double() / 16,
        LEVELS.numpy(),
        LEVELS.numpy().astype(np.uint16),
        LEVELS[:, 0],
        LEVELS.flatten(1),
        LEVELS.permute(0, 2, 3, 1),
        list(LEVELS),
        LEVELS.tolist(),
        LEVELS.numpy()[:, :, ::-1][:, :, ::-1],
        [Image.fromarray(image) for image in LEVELS[:, 0].numpy()],
    ],
)
def test_what_means_one_thing_becomes_the_levels(given) -> None:
    assert torch.equal(examples_of(DIGITS, given), LEVELS)


def test_one_example_and_colours_in_other_layouts() -> None:
    assert torch.equal(examples_of(DIGITS, LEVELS[1]), LEVELS[1:2])
    assert torch.equal(examples_of(DIGITS, LEVELS[1, 0].numpy()), LEVELS[1:2])
    for given in (PHOTOS, PHOTOS.permute(0, 2, 3, 1), PHOTOS.float() / 255, PHOTOS.permute(0, 2, 3, 1).numpy() / 255.0):
        assert torch.equal(examples_of(COLOUR, given), PHOTOS)
    assert torch.equal(examples_of(COLOUR, PHOTOS[0].permute(1, 2, 0)), PHOTOS[:1])
    ones = (torch.arange(32).reshape(2, 1, 4, 4) % 3 == 0).float()
    assert torch.equal(examples_of(BINARY, ones), ones.to(torch.uint8))  # of two levels both readings agree
    assert torch.equal(examples_of(BINARY, ones.bool()), ones.to(torch.uint8))
    assert torch.equal(examples_of(VECTORS, [[1, 2, 3, 4, 5, 6]]), torch.arange(1.0, 7.0).reshape(1, 1, 1, 6))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (LEVELS.float() / 255, "no levels: give integer levels 0..16, or floats v/16"),
        (LEVELS.float() / 8 - 1, "no levels"),
        (torch.ones(1, 1, 8, 8), "level 1 or level 16"),
        (LEVELS.long() + 1, "have level 17, and this run's data have levels 0..16"),
        (LEVELS.long() - 1, "have level -1"),
        (torch.full((1, 1, 8, 8), float("nan")), "not finite"),
        (LEVELS[:, :, :7], r"of shape \(4, 1, 7, 8\): this run takes \(N, 1, 8, 8\)"),
        (PHOTOS, r"of shape \(2, 3, 8, 8\)"),
        (LEVELS.reshape(4, 4, 16), r"\(N, 1, 8, 8\)"),
        (torch.tensor(3), r"of shape \(\)"),
        ([[1, 2], [3]], "a list of equal shapes"),
        ("images.npy", "not str"),
        (None, "not NoneType"),
    ],
)
def test_what_may_mean_another_thing_is_refused(given, said) -> None:
    with pytest.raises(UserError, match=said):
        examples_of(DIGITS, given)


def test_labels_are_whole_numbers_of_classes_that_exist() -> None:
    for given in ([3, 1], (3, 1), np.array([3, 1], np.int8), torch.tensor([3, 1])):
        assert classes_of(10, given, 2).tolist() == [3, 1]
    assert classes_of(10, 3, 2).tolist() == classes_of(10, [3], 2).tolist() == [3, 3]
    assert classes_of(10, [-1, 3], 2, lowest=-1).tolist() == [-1, 3]
    refused = {
        "0..9": [3, 10],
        "class -1": [-1, 0],
        "3 classes for 2": [1, 2, 3],
        "whole": [0.5, 1.0],
        "not str": "3",
    }
    for said, given in refused.items():
        with pytest.raises(UserError, match=said):
            classes_of(10, given, 2)

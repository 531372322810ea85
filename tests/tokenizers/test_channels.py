"""Channels as tokens: a third axis that every ordering of images takes."""

from __future__ import annotations

import pytest
import torch

from mar import build, config
from mar.core.errors import Unsupported, UserError
from mar.core.spec import DataSpec
from mar.networks import NETWORKS
from mar.tokenizers.base import TokenizerOptions
from mar.tokenizers.levels import Channels
from orderings import ORDERINGS, Grid, Plan, Seeded, parse_partition
from tests.data.conftest import NAMES, write_images

RGB = DataSpec((3, 4, 6), 256)
NEEDS = {"file": "a file", "learned": "a policy"}
SHARES = ["data.validation=0.2", "data.test=0.2"]


def test_the_channels_of_a_pixel_are_neighbours_red_first():
    x = torch.arange(72, dtype=torch.uint8).reshape(1, 3, 4, 6)
    tokenizer = Channels(RGB, TokenizerOptions())
    assert tokenizer.shape == (4, 6, 3)
    assert tokenizer.encode(x)[0, :6].tolist() == [0, 24, 48, 1, 25, 49]


@pytest.mark.parametrize("name", sorted(set(ORDERINGS) - set(NEEDS)))
def test_every_ordering_takes_the_third_axis(name):
    cls = ORDERINGS[name]
    grid = Grid(Channels(RGB, TokenizerOptions()).shape)
    plan = Plan.sample(cls(**cls.test_options), parse_partition("singles"), grid, 2, Seeded(2))
    assert torch.equal(plan.rank_BL.sort(1).values, torch.arange(len(grid)).expand(2, -1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), NAMES)


def recipe(folder, *overrides):
    return config.read(
        "digits", ["data=folder", f"data.path={folder}", "data.size=6", *SHARES, "tokenizer=channels", *overrides]
    )


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_a_network_takes_colour_images_or_refuses_when_the_recipe_is_read(network, folder):
    made = recipe(
        folder, f"network={network}", "ordering=raster", "partition=singles", "train.mask_ratio=plan",
    )  # fmt: skip
    data = build.data(made)
    if network in ("diagonal-bilstm", "row-lstm"):
        with pytest.raises(Unsupported, match="serves 2-D grids"):
            build.assemble(made, data)
        return
    model = build.assemble(made, data).model
    x, _ = data.train.batch(torch.arange(2))
    token = model.tokenizer.encode(x)
    step_BL = torch.arange(108).expand(2, -1)
    target_BL = step_BL == 50
    z_MD = model.context(token, step_BL, model.condition(torch.tensor([0, 1])), target_BL)
    assert z_MD.shape == (2, model.network.context_width)


def test_series_are_refused():
    with pytest.raises(UserError, match=r"tokenizer channels needs images .* use tokenizer\.kind=values"):
        Channels(DataSpec((1, 1, 12), 0, modality="vector"), TokenizerOptions())

"""A run from Python: what was asked of it before never changes what it answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mar import config
from mar.core.errors import UserError
from mar.likelihood.estimate import Repeats
from mar.run import Run, load, train
from orderings import GIVEN, Plan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "made"
    made = config.read("digits", [
        "network=made", "network.widths=[16]", "network.masks=4", "ordering=random", "partition=singles", 
        "train.mask_ratio=plan", "train.iterations=2", "train.batch_size=8", "train.sample_every=0",
        "train.validate_every=0",
    ])  # fmt: skip
    train(made, folder)
    return load(folder)


def test_a_mixture_of_connectivities_leaves_the_model_at_the_first_one(run: Run) -> None:
    before = run.sample(4, "raster/linear:4")
    run.nll(plan="random/linear:4", limit=4, repeats=Repeats(orders=3))
    assert run.model.network.drawn_H is None
    assert torch.equal(run.sample(4, "raster/linear:4"), before)


def test_frames_end_with_the_sample_wherever_it_begins(run: Run) -> None:
    asked: dict[str, Any] = {"plan": "raster/linear:4", "first": 3, "labels": torch.arange(5)}
    assert torch.equal(run.frames(2, **asked)[-1], run.sample(2, **asked))


def test_a_plan_as_tensor_says_itself_what_is_given(run: Run) -> None:
    image = torch.full((1, 8, 8), 1, dtype=torch.uint8)
    rank_BL = torch.arange(64).repeat(2, 1)
    mask = torch.arange(64) >= 32
    with pytest.raises(UserError, match="given"):
        run.sample(2, Plan(rank_BL, rank_BL), given=image, mask=mask)
    below_BL = torch.where(mask, rank_BL - 32, GIVEN)
    made = run.sample(2, Plan(below_BL, below_BL), given=image, mask=mask)
    assert torch.equal(made.flatten(1)[:, :32], image.flatten()[:32].expand(2, -1))
    with pytest.raises(UserError, match="2 rows and 64 tokens, for 3 examples"):
        run.sample(3, Plan(rank_BL, rank_BL))

"""Control variates: regression on statistics of all images leaves the mean unbiased and its error true and smaller."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import TensorSplit
from mar.likelihood.control import Control, regress, statistics

SPEC = DataSpec((1, 6, 6), 4)


def split(n: int, seed: int) -> TensorSplit:
    drawn = torch.Generator().manual_seed(seed)
    share_N = torch.rand(n, 1, 1, 1, generator=drawn)
    return TensorSplit((torch.rand(n, 1, 6, 6, generator=drawn) * (1 + 3 * share_N)).long().clamp(0, 3).to(torch.uint8))


def test_statistics_are_of_each_image_alone() -> None:
    train, images = split(50, 0), split(8, 1).x
    z_NP = statistics(4, train, images)
    assert z_NP.shape == (8, 7) and torch.equal(statistics(4, train, images[3:4]), z_NP[3:4])
    v = images.double()[:, 0] / 3
    assert torch.allclose(z_NP[:, 0], v.mean((1, 2))) and torch.allclose(z_NP[:, 2], v.diff(dim=1).abs().sum((1, 2)))
    count_LV = 1 + torch.stack([(train.x.flatten(1) == level).sum(0) for level in range(4)], 1).double()
    nats_LV = -(count_LV / count_LV.sum(1, keepdim=True)).log()
    by_hand = [sum(nats_LV[place, level] for place, level in enumerate(image.flatten().tolist())) for image in images]
    assert torch.allclose(z_NP[:, -1], torch.stack(by_hand))


def test_the_corrected_mean_is_unbiased_and_its_error_is_that_of_repeated_draws() -> None:
    """Nats that no line fits, of 5,000 images; 80 are drawn 2,000 times."""
    all_MP = statistics(4, split(200, 0), split(5000, 1).x)
    z_MP = (all_MP - all_MP.mean(0)) / all_MP.std(0)
    made = torch.Generator().manual_seed(2)
    nats_M = 90 + 8 * z_MP[:, 0] + 3 * z_MP[:, 2].square() + 2 * torch.randn(5000, generator=made, dtype=torch.float64)
    found, stated, plain = [], [], []
    for _ in range(2000):
        index = torch.randperm(5000, generator=made)[:80]
        mean, error = regress(nats_M[index], all_MP[index], all_MP)
        found.append(mean)
        stated.append(error**2)
        plain.append(float(nats_M[index].mean()))
    found_S, plain_S = torch.tensor(found), torch.tensor(plain)
    assert float(found_S.mean()) == pytest.approx(float(nats_M.mean()), abs=4 * float(found_S.std()) / 2000**0.5)
    explained = float((nats_M.var() - found_S.var() * 80) / 5000)  # of the split itself, which the draws share
    assert sum(stated) / 2000 == pytest.approx(float(found_S.var()) + max(0.0, explained), rel=0.15)
    assert float(found_S.std()) < 0.7 * float(plain_S.std())


def test_a_whole_split_is_left_as_it_is_and_the_error_over_orders_stays() -> None:
    every = split(100, 3).x
    control = Control(SPEC, split(50, 0), every, every)
    nats = [float(v) for v in every.double().flatten(1).mean(1)]
    over_images = float(torch.tensor(nats, dtype=torch.float64).std()) / 10
    tokenizer = SimpleNamespace(dimensions=36, end=None)
    found = SimpleNamespace(nats_of_image=nats, nats_per_image=sum(nats) / 100, standard_error_nats=2 * over_images)
    corrected = control.correct(tokenizer, found)  # type: ignore[arg-type]
    assert corrected.nats_per_image == found.nats_per_image and corrected.n_all == 100
    assert corrected.standard_error_nats == pytest.approx(2 * over_images)


def test_few_images_and_other_data_are_refused() -> None:
    train, every = split(50, 0), split(100, 1).x
    with pytest.raises(UserError, match="at least 28 images"):
        Control(SPEC, train, every[:20], every)
    with pytest.raises(UserError, match="images of integer levels"):
        Control(DataSpec((1, 1, 36), 4, modality="text"), train, every, every)

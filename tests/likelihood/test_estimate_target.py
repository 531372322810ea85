"""Scoring until a wanted standard error is reached, and the variance components of images under shared orders.

N images · S orders
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch

from mar.core.errors import UserError
from mar.likelihood.chain import score
from mar.likelihood.estimate import Components, components, parse_target, until_error
from mar.likelihood.summary import Likelihood
from tests.likelihood.test_estimate import draw, images, tiny

__all__ = ["images"]  # a fixture


def simulated(seed: int, n: int, s: int, truth: Components) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=made, dtype=torch.float64)

    image, order = normal(n, 1) * truth.images**0.5, normal(1, s) * truth.orders**0.5
    return 80.0 + image + order + normal(n, s) * truth.interaction**0.5


def test_variance_components_of_simulated_crossed_data_are_unbiased():
    truth = Components(images=9.0, orders=0.5, interaction=4.0)
    found = [components(simulated(seed, 10, 4, truth)) for seed in range(800)]
    for name in ("images", "orders", "interaction"):
        values = torch.tensor([getattr(one, name) for one in found])
        error = float(values.std()) / 800**0.5
        assert abs(float(values.mean()) - getattr(truth, name)) < 4.0 * error, name
        assert error < 0.2  # the assertion above can fail


def test_a_single_order_leaves_images():
    truth = Components(images=9.0, orders=0.0, interaction=0.0)
    found = [components(simulated(seed, 10, 1, truth)) for seed in range(500)]
    assert sum(one.images for one in found) / 500 == pytest.approx(9.0, rel=0.1)
    assert {(one.orders, one.interaction) for one in found} == {(0.0, 0.0)}


@dataclass
class Population:
    """Nats of images, drawn anew at every look."""

    template: Likelihood
    seed: int
    looks: list[int]

    def score(self, n: int) -> Likelihood:
        made = torch.Generator().manual_seed(10_000 * self.seed + len(self.looks))
        self.looks.append(n)
        nats_N = 80.0 + 9.0 * torch.randn(n, generator=made, dtype=torch.float64)
        error = float(nats_N.std()) / math.sqrt(n)
        return replace(self.template, n_images=n, nats_per_image=float(nats_N.mean()), standard_error_nats=error)


@pytest.fixture(scope="module")
def template(images):
    return score(tiny(), images[:4], None, draw("raster"), "raster")


def test_ever_more_images_are_scored_until_the_error_is_small_enough(template):
    population = Population(template, 0, [])
    found = until_error(population.score, 0.5, 10_000)
    assert found.standard_error_nats <= 0.5 and found.n_images == population.looks[-1]
    assert population.looks[0] == 32 and all(b >= 2 * a for a, b in pairwise(population.looks))
    assert found.n_images < 3 * (9.0 / 0.5) ** 2
    few = Population(template, 0, [])
    assert until_error(few.score, 0.5, 100).standard_error_nats > 0.5 and few.looks == [32, 100]
    with pytest.raises(UserError, match="at least 2 images"):
        until_error(few.score, 0.5, 1)


def test_stopping_leaves_the_mean_unbiased_and_the_error_honest(template):
    found = [until_error(Population(template, seed, []).score, 1.0, 10_000) for seed in range(1500)]
    mean = torch.tensor([f.nats_per_image for f in found], dtype=torch.float64)
    assert abs(float(mean.mean()) - 80.0) < 4.0 * float(mean.std()) / math.sqrt(len(mean))
    stated = math.sqrt(sum(f.standard_error_nats**2 for f in found) / len(found))
    assert stated == pytest.approx(float(mean.std()), rel=0.1)


def test_a_target_is_bits_per_dimension_or_nats():
    tokenizer = tiny().tokenizer
    assert parse_target("0.5nats", tokenizer) == 0.5
    assert parse_target("0.01", tokenizer) == pytest.approx(0.01 * 8 * math.log(2.0))
    for text in ("0", "-1", "much", "nan", ""):
        with pytest.raises(UserError, match=r"0\.01 \(bits/dim\) or 0\.5nats"):
            parse_target(text, tokenizer)
    tokenizer.dimensions = 0  # latents
    with pytest.raises(UserError, match=r"0\.01nats"):
        parse_target("0.01", tokenizer)


@pytest.mark.parametrize("plan", ["raster", "random"])
def test_a_scoring_reaches_the_wanted_error(images, plan):
    model = tiny()

    def score_n(n: int) -> Likelihood:
        return score(model, images[:n], None, draw(plan), plan, 1)

    found = until_error(score_n, 0.2, len(images))
    assert 0.1 < found.standard_error_nats <= 0.2

"""Variance components of crossed data, and scorings planned from them.

N images · S orders · R repeats
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mar.core.errors import UserError
from mar.likelihood.estimate import (
    Components,
    Estimator,
    Pilot,
    components,
    parse_target,
    plan_budget,
    run_pilot,
    variance,
)
from mar.likelihood.score import score
from tests.likelihood.test_estimate import draw, images, tiny

__all__ = ["images"]  # a fixture


def simulated(seed: int, n: int, s: int, r: int, truth: Components) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=made, dtype=torch.float64)

    image, order = normal(n, 1, 1) * truth.images**0.5, normal(1, s, 1) * truth.orders**0.5
    return 80.0 + image + order + normal(n, s, 1) * truth.interaction**0.5 + normal(n, s, r) * truth.noise**0.5


def test_variance_components_of_simulated_crossed_data_are_unbiased():
    truth = Components(images=9.0, orders=0.5, interaction=2.0, noise=4.0)
    found = [components(simulated(seed, 10, 4, 2, truth)) for seed in range(800)]
    for name in ("images", "orders", "interaction", "noise"):
        values = torch.tensor([getattr(one, name) for one in found])
        error = float(values.std()) / 800**0.5
        assert abs(float(values.mean()) - getattr(truth, name)) < 4.0 * error, name
        assert error < 0.2  # the assertion above can fail
    for name in ("images", "interaction"):
        values = torch.tensor([getattr(one, name) for one in found])
        stated = torch.tensor([getattr(one, f"{name}_error") for one in found]).square().mean().sqrt()
        assert float(stated) == pytest.approx(float(values.std()), rel=0.25)


def test_a_single_order_leaves_images_and_noise():
    truth = Components(images=9.0, orders=0.0, interaction=0.0, noise=4.0)
    found = [components(simulated(seed, 10, 1, 2, truth)) for seed in range(500)]
    assert sum(one.images for one in found) / 500 == pytest.approx(9.0, rel=0.1)
    assert sum(one.noise for one in found) / 500 == pytest.approx(4.0, rel=0.1)
    assert {(one.orders, one.interaction) for one in found} == {(0.0, 0.0)}


def pilot(**changes) -> Pilot:
    """64 steps of which 8 were drawn."""
    values = {
        "components": Components(100.0, 4.0, 5.0, 400.0), "steps": 64, "drawn": 8, "one_pass": False, "random": True,
        "noisy_head": False, "seconds_per_row": 0.01, "forward_rows": 1,
    } | changes  # fmt: skip
    return Pilot(**values)


def test_the_plan_is_the_cheapest_that_reaches_the_target():
    found = plan_budget(pilot(), 1.0, 100_000)
    assert found.reached and found.standard_error_nats <= 1.0
    reached = [
        images * orders * steps
        for images in range(32, 1200)
        for orders in (1, 2, 4)
        for steps in (8, 16, 32, 64)
        if variance(pilot(), images, orders, steps) <= 1.0
    ]
    assert found.forward_rows == min(reached)
    assert found.seconds == pytest.approx(0.01 * found.forward_rows)
    assert Estimator.parse(found.estimator).steps == (found.steps if found.steps < 64 else 0)


def test_few_images_take_more_steps_then_more_orders():
    many, few, fewer = (plan_budget(pilot(), 1.0, most) for most in (1000, 120, 105))
    assert many.steps == 8 and many.orders_per_image == 1
    assert few.steps > 8 and few.images <= 120 and few.reached
    assert fewer.orders_per_image > 1 and fewer.reached and fewer.forward_rows > few.forward_rows
    none = plan_budget(pilot(), 1.0, 99)
    assert not none.reached and none.images == 99 and none.estimator == "exact" and none.standard_error_nats > 1.0


def test_a_one_pass_network_computes_every_step_and_a_fixed_order_is_one():
    one = plan_budget(pilot(one_pass=True, drawn=64, components=Components(100.0, 4.0, 5.0, 0.0)), 1.0, 10_000)
    assert one.estimator == "exact" and one.forward_rows == one.images == 109
    assert plan_budget(pilot(random=False), 0.99, 110).orders_per_image == 1


def test_noise_of_the_head_is_left_when_every_step_is_computed():
    assert variance(pilot(), 10, 1, 64) == pytest.approx(10.9)
    assert variance(pilot(noisy_head=True), 10, 1, 64) == pytest.approx(10.9 + 400.0 * 8 / 64 / 10)


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
def test_what_a_pilot_plans_is_what_the_scoring_reaches(images, plan):
    """From 32 images and 4 of 8 steps: the standard error reached is near the target, mostly below."""
    model, target = tiny(), 0.4

    def score_one(estimator, repeat, order):
        def along(noise):
            shared = noise if order is None else noise.rows(torch.zeros(len(noise), dtype=torch.int64))
            return draw(plan)(shared)

        assert estimator == Estimator(16)  # more than there are
        return score(model, images[:32], None, along, plan, estimator=Estimator(4), repeat=repeat)

    found = replace(run_pilot(score_one, plan == "random", False, 8), drawn=4)
    budget = plan_budget(found, target, len(images))
    reached = score(
        model, images[: budget.images], None, draw(plan), plan, 1, estimator=Estimator.parse(budget.estimator)
    )
    assert budget.reached and budget.orders_per_image == 1
    assert 0.5 * target < reached.standard_error_nats < 1.1 * target

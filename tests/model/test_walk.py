"""The walk over a plan: every token once, contexts of what is known, reading and drawing agree.

B batch · L tokens
"""

from __future__ import annotations

import pytest
import torch

from mar.core.noise import stream
from mar.likelihood.chain import read_walks, token_log_prob
from mar.model.walk import Walk, along, by_score
from orderings import GIVEN, Plan, parse_adaptive
from tests.likelihood.test_estimate import draw, tiny

NONE = torch.full((3,), -1)


def plan_of(text: str) -> Plan:
    return draw(text)(stream(0, "order", 3))


@pytest.mark.parametrize("text", ["raster", "random", "random/equal:3", "spiral/cosine:4"])
def test_every_token_is_taken_once_in_the_plans_order(text):
    plan = plan_of(text)
    step_BL = torch.full_like(plan.step_BL, -5)
    walk = Walk(tiny(), plan, NONE)
    for step in walk:
        assert not bool((step.target_BL & ~walk.unknown_BL).any())
        step_BL[step.target_BL] = step.number
    assert torch.equal(step_BL, plan.step_BL) and not bool(walk.unknown_BL.any())


def test_contexts_depend_on_known_tokens_alone():
    model, plan = tiny(), plan_of("raster/equal:2")
    zeros, ones = (Walk(model, plan, NONE, torch.full((3, 8), value)) for value in (0, 1))
    for first, second in zip(zeros, ones, strict=True):
        assert torch.equal(first.z_MD, second.z_MD) == (first.number == 0)


def test_given_tokens_stay_and_condition():
    plan = plan_of("raster")
    given = Plan(plan.rank_BL.clamp(min=3) - 3, torch.where(plan.step_BL < 3, GIVEN, plan.step_BL - 3))
    token = torch.tensor([[0] * 8, [1] * 8, [0, 1] * 4])
    walk = Walk(tiny(), given, NONE, token)
    for step in walk:
        walk.write(step.target_BL, 1 - walk.token[step.target_BL])
    assert torch.equal(walk.token[:, :3], token[:, :3]) and torch.equal(walk.token[:, 3:], 1 - token[:, 3:])


def test_guidance_asks_for_every_context_twice():
    model, plan = tiny(), plan_of("random/equal:3")
    for alone, twice in zip(Walk(model, plan, NONE), Walk(model, plan, NONE, guided=True), strict=True):
        assert alone.null_MD is None and twice.null_MD is not None
        torch.testing.assert_close(alone.z_MD, twice.z_MD)
        torch.testing.assert_close(twice.null_MD, twice.z_MD)  # no class: the null condition is the condition


@pytest.mark.parametrize("text", ["raster", "random/equal:3"])
def test_reading_a_walk_is_the_chain(text):
    model, plan = tiny(), plan_of(text)
    token, noise = torch.randint(0, 2, (3, 8)), stream(0, "nll", 3)
    found, step_BL = read_walks(model, token, plan, NONE, noise, "exact", along)
    torch.testing.assert_close(found.nats_BL, token_log_prob(model, token, plan, NONE, noise).nats_BL)
    assert torch.equal(step_BL, plan.step_BL) and found.forward_rows == int(plan.n_steps_B.sum())


def test_entropy_takes_the_surest_token_first():
    model, plan = tiny(), plan_of("raster")
    walk = Walk(model, plan, NONE, choose=by_score(parse_adaptive("lowest-entropy"), plan.sizes()))
    first = next(iter(walk))
    everything = Walk(model, plan, NONE).query(0, torch.ones(3, 8, dtype=torch.bool))
    entropy_BL = model.head.entropy(everything.z_MD).reshape(3, 8)
    assert torch.equal(first.target_BL.float().argmax(1), entropy_BL.argmin(1))

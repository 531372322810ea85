"""The chain rule, step by step and in chunks."""

from __future__ import annotations

import pytest
import torch

from mar import build, config
from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead
from mar.likelihood.chain import n_pairs, rows_in_budget, score, token_log_prob
from mar.model.model import Model
from orderings import GIVEN, Grid, Plan, PlanSpec
from tests.helpers import OnePass


@pytest.fixture(scope="module")
def model() -> Model:
    recipe = config.read("digits", ["network.encoder_width=16", "network.encoder_heads=2", "network.decoder_width=16"])
    return build.assemble(recipe).model.eval()


def plan_of(text: str, n: int, given_BL=None) -> Plan:
    return Plan.sample(*PlanSpec.parse(text), Grid((8, 8)), n, stream(0, "order", n), given_BL)


def test_chunks_of_any_size_give_the_same_likelihood(model):
    token, label = torch.randint(17, (5, 64), generator=torch.Generator().manual_seed(0)), torch.arange(5)
    plan, noise = plan_of("random/cosine:12", 5), stream(0, "nll", 5)
    whole = token_log_prob(model, token, plan, label, noise)
    small = token_log_prob(model, token, plan, label, noise, budget=7 * 4 * 64 * (16 * 16 + 4 * 17))
    assert rows_in_budget(model, 7 * 4 * 64 * (16 * 16 + 4 * 17)) == 7
    torch.testing.assert_close(whole.nats_BL, small.nats_BL, rtol=1e-4, atol=1e-5)


def test_every_conditional_equals_a_forward_pass_of_its_own(model):
    token, label = torch.randint(17, (2, 64), generator=torch.Generator().manual_seed(1)), torch.arange(2)
    plan = plan_of("spiral/equal:8", 2)
    chain = token_log_prob(model, token, plan, label, stream(0, "nll", 2)).nats_BL
    with torch.no_grad():
        for step in (0, 3, 7):
            target_BL = plan.target(step)
            hidden = torch.where(plan.known(step), token, 0)  # what is not known cannot matter
            z_MD = model.context(hidden, plan.step_BL, model.condition(label), target_BL)
            by_hand = model.head.logits(z_MD).log_softmax(-1).gather(1, token[target_BL][:, None])[:, 0]
            torch.testing.assert_close(chain[target_BL], by_hand, rtol=1e-4, atol=1e-5)


def test_given_tokens_are_conditioned_on_and_never_scored(model):
    token, label = torch.randint(17, (3, 64), generator=torch.Generator().manual_seed(2)), torch.arange(3)
    given_BL = torch.zeros(3, 64, dtype=torch.bool)
    given_BL[0, :32], given_BL[2] = True, True
    plan = plan_of("raster", 3, given_BL)
    result = token_log_prob(model, token, plan, label, stream(0, "nll", 3))
    assert (result.nats_BL[given_BL] == 0).all() and (result.nats_BL[~given_BL] < 0).all()
    assert (plan.step_BL[given_BL] == GIVEN).all() and result.forward_rows == 32 + 64


def test_a_one_pass_network_costs_one_row_per_image():
    torch.manual_seed(0)
    recipe = config.read("digits")
    tokenizer = build.assemble(recipe).model.tokenizer
    network = OnePass((8, 8), OnePass.Options())
    model = Model(tokenizer, network, CategoricalHead(8, Categories(17), CategoricalHead.Options())).eval()
    token, none = torch.randint(17, (4, 64)), torch.full((4,), -1)
    plan = plan_of("random", 4)
    result = token_log_prob(model, token, plan, none, stream(0, "nll", 4))
    assert result.forward_rows == n_pairs(plan, True) == 4
    with torch.no_grad():
        z_MD = model.context(token, plan.step_BL, model.condition(none), plan.scored_BL)
        by_hand = model.head.logits(z_MD).log_softmax(-1).gather(1, token.reshape(-1, 1)).reshape(4, 64)
    torch.testing.assert_close(result.nats_BL, by_hand)


def test_curve_map_and_images_add_up_to_the_mean(model):
    recipe = config.read("digits")
    images, labels = build.data(recipe).test.batch(torch.arange(6))
    seen = []
    result = score(
        model, images, labels, lambda noise: plan_of("hilbert/equal:4", len(noise)), "hilbert/equal:4",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert result.kind == "exact" and result.n_images == 6 and result.steps == 16
    assert sum(result.nats_per_step) == pytest.approx(result.nats_per_image)
    assert sum(result.nats_per_position) == pytest.approx(result.nats_per_image)
    assert sum(result.nats_of_image) / 6 == pytest.approx(result.nats_per_image)
    assert result.tokens_per_step == (4.0,) * 16
    assert result.bits_per_dim == pytest.approx(result.nats_per_image / 64 / 0.6931471805599453)
    assert seen[-1] == (96, 96)

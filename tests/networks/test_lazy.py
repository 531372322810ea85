"""Generation with reused features: what it keeps of the contract.

B batch · L tokens · D width · M gathered tokens
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from mar import build, config
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.likelihood.chain import token_log_prob
from mar.model.model import sampling_options, scoring_options
from mar.networks.attention import Rotary
from mar.networks.base import ABSENT, GIVEN
from mar.networks.masked_transformer import MaskedGeneration, MaskedTransformer, MaskedTransformerOptions
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from orderings import Grid, Plan, PlanSpec

B, SHAPE = 4, (3, 4)
OPTIONS = MaskedTransformerOptions(
    encoder_width=16, encoder_depth=2, encoder_heads=2, decoder_width=8, decoder_depth=2, decoder_heads=2, buffer=2
)
SMALL = [f"network.{key}={value}" for key, value in vars(OPTIONS).items() if isinstance(value, int)]


def network(refresh: int, rotary: Rotary = "none") -> MaskedTransformer:
    torch.manual_seed(0)
    net = MaskedTransformer(SHAPE, replace(OPTIONS, rotary=rotary)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    net.sampling = MaskedGeneration(refresh)
    return net


def inputs(net: MaskedTransformer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    step_BL = torch.stack([torch.randperm(12) // 2 for _ in range(B)])
    step_BL[1, step_BL[1] == 0] = GIVEN
    step_BL[2, step_BL[2] == 5] = ABSENT
    return torch.randn(B, 12, net.token_width), step_BL, torch.randn(B, net.condition_width)


@torch.no_grad()
def contexts(net: MaskedTransformer, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor):
    """z_MD of every step of a generation."""
    found, state = [], net.begin(condition_BC, step_BL == ABSENT)
    state = net.observe(state, token_BLD, step_BL == GIVEN)
    for step in range(6):
        found.append(net.query(state, step_BL == step))
        state = net.observe(state, token_BLD, step_BL == step)
    return found


@pytest.mark.parametrize("rotary", ["none", "sequence", "axes"])
def test_a_full_pass_gives_the_contexts_of_the_network(rotary: Rotary) -> None:
    token_BLD, step_BL, condition_BC = inputs(network(1))
    plain, lazy = (contexts(network(refresh, rotary), token_BLD, step_BL, condition_BC) for refresh in (1, 3))
    for step in range(6):
        close = torch.allclose(plain[step], lazy[step], atol=1e-5)
        assert close == (step % 3 == 0), step  # the passes in between are approximations


@pytest.mark.parametrize("refresh", [2, 100])
def test_unknown_tokens_never_change_a_context(refresh: int) -> None:
    net = network(refresh)
    token_BLD, step_BL, condition_BC = inputs(net)
    found = contexts(net, token_BLD, step_BL, condition_BC)
    for step in range(6):
        other_BLD = torch.where((step_BL >= step)[..., None], torch.nan, token_BLD)
        again = contexts(net, other_BLD, step_BL, condition_BC)
        assert torch.equal(again[step], found[step])


def test_the_likelihood_of_reused_features_sums_to_one() -> None:
    """Over all values of three tokens of a digit whose others are given."""
    recipe = config.read("digits", SMALL)
    model = build.assemble(recipe).model.eval()
    torch.manual_seed(0)
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    step_L = torch.full((64,), GIVEN)
    step_L[[3, 17, 40]] = torch.tensor([0, 2, 1])
    values = torch.tensor(list(itertools.product(range(17), repeat=3)))
    token = build.data(recipe).test.batch(torch.arange(1))[0].reshape(1, 64).long().repeat(len(values), 1)
    token[:, [3, 17, 40]] = values
    step_BL = step_L.expand(len(values), -1)
    plan = Plan(torch.where(step_BL < 0, -1, step_BL), step_BL)
    with scoring_options(model, {"refresh": 2}):
        found = token_log_prob(model, token, plan, torch.zeros(len(values)).long(), stream(0, "x", len(values)))
    assert found.settings == {"refresh": 2}
    assert float(found.nats_BL.double().sum(1).exp().sum()) == pytest.approx(1.0, abs=1e-4)


def test_samples_come_with_guidance_and_in_any_batch() -> None:
    recipe = config.read("digits", SMALL)
    model = build.assemble(recipe).model.eval()
    plan_of = PlanSpec.parse("random/equal:8")

    def tokens(index: torch.Tensor) -> torch.Tensor:
        noise = stream(0, "sample", index)
        plan = Plan.sample(*plan_of, Grid((8, 8)), len(index), noise.at("order"))
        return generate(model, plan, index % 10, noise.at("tokens"), Guidance(2.0))

    with sampling_options(model, {"refresh": 3}):
        whole = tokens(torch.arange(9))
        assert torch.equal(whole, torch.cat([tokens(i) for i in torch.arange(9).split([4, 1, 4])]))


def test_refresh_below_one_and_other_networks_are_refused() -> None:
    recipe = config.read("digits", SMALL)
    model = build.assemble(recipe).model
    with pytest.raises(UserError, match="at least 1"), sampling_options(model, {"refresh": 0}):
        pass
    causal = config.read("digits", ["network=causal-transformer"])
    with (
        pytest.raises(UserError, match="refresh"),
        sampling_options(build.assemble(causal).model, {"refresh": 2}),
    ):
        pass

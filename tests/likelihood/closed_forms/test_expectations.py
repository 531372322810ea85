"""Means over many images: entropies, summed conditional total correlations, and bounds that lie above.

B batch · M gathered tokens · E token channels
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from mar.core.noise import Noise, stream
from mar.core.tokens import Vectors
from mar.heads.base import LogProb
from mar.heads.diffusion import DiffusionSampling
from mar.heads.gaussian_mixture import GaussianMixtureHead
from mar.likelihood.chain import score
from mar.likelihood.summary import Likelihood
from mar.metrics.statistics import paired_differences
from mar.model.model import Model
from mar.networks.base import Network
from mar.verification.models import BareTokens
from orderings import Grid, Plan, PlanSpec
from tests.heads.diffusion_oracle import STD, gaussian_head
from tests.likelihood.closed_forms.joint import total_correlation
from tests.likelihood.closed_forms.plugged import JOINTS, OnePass, plugged

N = 800


def likelihood(model: Model, token: torch.Tensor, text: str) -> Likelihood:
    grid = Grid(model.tokenizer.shape)
    return score(model, token, None, lambda noise: Plan.sample(*PlanSpec.parse(text), grid, len(noise), noise), text)


@cache
def scored(joint: str, text: str) -> Likelihood:
    chosen = JOINTS[joint]
    return likelihood(plugged(chosen, OnePass), chosen.sample(stream(2, "data", N)), text)


def within(result: Likelihood, truth: float) -> bool:
    """Three and a half standard errors: a seed in two thousand fails."""
    return abs(result.nats_per_image - truth) < 3.5 * result.standard_error_nats


@pytest.mark.parametrize("text", ["raster", "random"])
@pytest.mark.parametrize("joint", ["gaussian", "markov", "ising"])
def test_the_mean_nll_is_the_entropy(joint, text):
    everything_L = torch.ones(len(Grid(JOINTS[joint].shape)), dtype=torch.bool)
    assert within(scored(joint, text), float(JOINTS[joint].entropy(everything_L)))


@pytest.mark.parametrize("text", ["raster/equal:2", "reverse/linear:3", "random/equal:3", "raster/sizes"])
@pytest.mark.parametrize("joint", ["gaussian", "markov", "ising"])
def test_the_paired_excess_of_sets_covers_the_conditional_total_correlation(joint, text):
    ordering = text.partition("/")[0]
    results = {ordering: scored(joint, ordering), text: scored(joint, text)}
    found = paired_differences(results, ordering, confidence=0.99)[text]
    grid = Grid(JOINTS[joint].shape)
    rows = N if ordering == "random" else 1
    plan = Plan.sample(
        *PlanSpec.parse(text), grid, rows, stream(0, "nll", rows).at("order")
    )  # the plans that score drew
    truth = float(total_correlation(JOINTS[joint], plan).mean())
    assert found.interval_nats[0] < truth < found.interval_nats[1]
    assert truth > 0.1 and found.interval_nats[0] > 0


def test_fewer_sets_of_one_order_cost_more():
    excess = [scored("gaussian", f"raster/linear:{k}").nats_per_image for k in (16, 4, 2, 1)]
    assert excess == sorted(excess) and excess[0] == scored("gaussian", "raster").nats_per_image


class StochasticBound(GaussianMixtureHead):
    """The exact density less a gap whose mean is known: log p + s ε − s, E[log p estimate] = log p − s."""

    likelihoods = frozenset({"exact", "bound"})
    s = 0.1

    def log_prob(self, z_MD: torch.Tensor, x_M: torch.Tensor, kind: str, noise: Noise) -> LogProb:
        exact = super().log_prob(z_MD, x_M, "exact", noise)
        if kind == "exact":
            return exact
        return LogProb(exact.nats_M + self.s * (noise.normal(1)[:, 0] - 1.0), kind)


def test_a_stochastic_bound_lies_above_by_its_gap():
    joint = JOINTS["mixture"]
    model, token = plugged(joint, OnePass), joint.sample(stream(3, "data", N))
    model.head.__class__ = StochasticBound
    grid = Grid(joint.shape)

    def along(noise: Noise) -> Plan:
        return Plan.sample(*PlanSpec.parse("random"), grid, len(noise), noise)

    exact = score(model, token, None, along, "random", kind="exact")
    bound = score(model, token, None, along, "random", kind="bound")
    gap_N = torch.tensor(bound.nats_of_image) - torch.tensor(exact.nats_of_image)
    assert (exact.kind, bound.kind) == ("exact", "bound")
    assert float(gap_N.std()) == pytest.approx(0.1 * len(grid) ** 0.5, rel=0.1)  # every token has noise of its own
    assert abs(float(gap_N.mean()) - 0.1 * len(grid)) < 3.5 * float(gap_N.std()) / N**0.5


class Walk(Network):
    """The mean of x_l given the token before it in raster order, 0.8 of it: an autoregressive Gaussian."""

    one_pass, token_width, condition_width, context_width = True, 1, 1, 1

    def forward(
        self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor, target_BL: torch.Tensor
    ) -> torch.Tensor:
        before_BLD = torch.cat([torch.zeros_like(token_BLD[:, :1]), token_BLD[:, :-1]], 1)
        return 0.8 * before_BLD[target_BL]


def walks(n: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (N, L, 1) with x_l ~ N(0.8 x_{l-1}, STD²), and their joint -log p (N)."""
    normal_NL = stream(4, "data", n).normal(length)
    token_NL = torch.zeros(n, length)
    for place in range(length):
        before = token_NL[:, place - 1] if place else 0.0
        token_NL[:, place] = 0.8 * before + STD * normal_NL[:, place]
    return token_NL[..., None], -torch.distributions.Normal(0.0, STD).log_prob(STD * normal_NL).sum(1)


@pytest.mark.parametrize("exact_variance", [True, False])
def test_the_diffusion_bound_lies_above_the_joint_nll(exact_variance):
    """The exact predictor along a chain: the bound is tight with the exact reverse variances, above with others."""
    token, truth_N = walks(400, 6)
    head = gaussian_head(1, DiffusionSampling(bound_steps=100), exact_variance, timesteps=200)
    head.net.process = head.chain(100)  # pyright: ignore[reportArgumentType]
    model = Model(BareTokens((6,), Vectors(1)), Walk(), head).eval()
    with torch.no_grad():
        model.embedding.embed.weight.fill_(1.0)  # pyright: ignore
        model.embedding.embed.bias.zero_()  # pyright: ignore
    result = likelihood(model, token, "raster")
    gap_N = torch.tensor(result.nats_of_image) - truth_N
    error = float(gap_N.std()) / len(gap_N) ** 0.5
    assert result.kind == "bound" and error < 0.5
    if exact_variance:
        assert abs(float(gap_N.mean())) < 3.5 * error
    else:
        assert float(gap_N.mean()) > 3.5 * error

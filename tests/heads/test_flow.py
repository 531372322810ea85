"""The flow head against closed forms: the exact velocity of Gaussians and of a mixture stands in for the network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.tokens import Vectors
from mar.heads.flow import _TIME_SCALE, FlowHead, FlowOptions, FlowSampling
from mar.heads.ode import OdeScoring
from tests.heads.continuous import GAUSSIAN, STD, TWO, Mixture, log_prob, mass

RK4 = OdeScoring(solver="rk4", steps=30)


class Oracle(nn.Module):
    """E[x_1 - x_0 | x_t]; the context is the mixture's shift."""

    def __init__(self, target: Mixture) -> None:
        super().__init__()
        self.cond_embed, self.target = nn.Identity(), target

    def forward(self, x_NE: torch.Tensor, t_N: torch.Tensor, shift_NE: torch.Tensor) -> torch.Tensor:
        t_N1 = (t_N / _TIME_SCALE)[:, None]
        data_NE, normal_NE = self.target.posterior(x_NE.double(), shift_NE.double(), t_N1, 1 - t_N1)
        return (data_NE - normal_NE).float()


def oracle(target: Mixture, channels: int, **scoring) -> FlowHead:
    head = FlowHead(channels, Vectors(channels), FlowOptions())
    head.net = Oracle(target)  # pyright: ignore[reportAttributeAccessIssue]
    head.scoring = OdeScoring(**scoring)
    return head


def random_head(channels: int) -> FlowHead:
    """A head whose velocity is not the zero that training starts from."""
    torch.manual_seed(0)
    head = FlowHead(6, Vectors(channels), FlowOptions(width=32, depth=2))
    for parameter in head.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return head


@pytest.mark.parametrize("target", [GAUSSIAN, TWO])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("scoring", [{}, {"solver": "rk4", "steps": 100}, {"solver": "heun", "steps": 300}])
def test_the_density_of_the_exact_velocity_is_the_targets(scoring, channels, target):
    head = oracle(target, channels, **scoring)
    z, x = stream(0, "z", 50).normal(channels), 1.5 * stream(0, "x", 50).normal(channels)
    result = head.log_prob(z, x, "ode", stream(0, "score", 50))
    one = torch.ones(1, 1, dtype=torch.float64)
    wanted = target.log_density(x.double(), z.double(), one, 0 * one)
    assert result.kind == "ode" and not result.estimate
    tolerance = {"heun": 5e-3}.get(head.scoring.solver, 1e-3)
    torch.testing.assert_close(result.nats_M.double(), wanted, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("channels, half_width, points", [(1, 12.0, 2401), (2, 8.0, 65)])
def test_the_density_of_a_random_network_integrates_to_one(channels, half_width, points):
    head = random_head(channels)
    head.scoring = RK4
    for z in stream(1, "z", 3 - channels).normal(6):
        assert mass(head, z, channels, half_width, points) == pytest.approx(1, abs=1e-3)
        assert log_prob(head, z, torch.zeros(1, channels)) != pytest.approx(-0.5 * channels * math.log(2 * math.pi))


def test_adaptive_and_fixed_solvers_agree():
    head, z, x = random_head(3), stream(2, "z", 30).normal(6), stream(2, "x", 30).normal(3)
    nats = {}
    for scoring in (OdeScoring(), OdeScoring(tolerance=1e-4), RK4, OdeScoring(solver="heun", steps=200)):
        head.scoring = scoring
        result = head.log_prob(z, x, "ode", stream(0, "score", 30))
        nats[scoring], evaluations = result.nats_M, result.evaluations
        assert result.settings == scoring.settings()
        assert evaluations == {"rk4": 120, "heun": 400}.get(scoring.solver, evaluations) > 6
    for other in nats.values():
        torch.testing.assert_close(other, nats[OdeScoring()], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "sampling", [{}, {"solver": "euler", "steps": 100}, {"solver": "midpoint"}, {"solver": "rk4"}, {"solver": "rk45"}]
)
def test_samples_of_the_exact_velocity_follow_the_target(sampling):
    head = oracle(TWO, 1)
    head.sampling = FlowSampling(**sampling)
    x = head.sample(torch.full((4000, 1), 0.5), stream(3, "sample", 4000))[:, 0].numpy()

    def cdf(at: np.ndarray) -> np.ndarray:
        weight, mean = np.array(TWO.weights), np.array(TWO.means)
        return (weight * stats.norm.cdf(at[:, None], 0.5 + mean, STD)).sum(1)

    assert stats.kstest(x, cdf).pvalue > 1e-3


def test_samples_of_a_random_network_follow_its_density():
    """Sampler and density go opposite ways along one flow: points at rank u of N(0, 1) are at rank u of the density."""
    head, z = random_head(1), stream(4, "z", 1).normal(6)
    head.sampling = FlowSampling(solver="rk45")
    x = head.sample(z.expand(4000, -1), stream(4, "sample", 4000))[:, 0].double().numpy()
    at = torch.linspace(-12, 12, 1501, dtype=torch.float64)
    density = log_prob(head, z[0], at[:, None]).exp()
    cdf = torch.cumulative_trapezoid(density, at).numpy()
    assert stats.kstest(x, lambda v: np.interp(v, at[1:].numpy(), cdf)).pvalue > 1e-3
    assert stats.kstest(x, "norm").pvalue < 1e-6


def test_temperature_scales_the_deviation_of_a_gaussian():
    head, z, noise = oracle(GAUSSIAN, 2), stream(5, "z", 100).normal(2), stream(5, "sample", 100)
    warm, cold, frozen = (head.sample(z, noise, temperature=t) - z for t in (1.0, 0.5, 0.0))
    torch.testing.assert_close(cold, 0.5 * warm, rtol=1e-3, atol=1e-3)
    assert frozen.abs().max() < 1e-3 and abs(float(warm.std()) - STD) < 0.1


@pytest.mark.parametrize("solver", ["heun", "rk45"])
def test_guidance_extrapolates_the_velocity_with_a_scale_for_each_token(solver):
    """Of Gaussians of one deviation the velocity is linear in the mean, so that guidance extrapolates the mean."""
    head = oracle(GAUSSIAN, 2)
    head.sampling = FlowSampling(solver=solver)
    z, null = stream(6, "z", 60).normal(2), stream(6, "null", 60).normal(2)
    noise, scale = stream(6, "sample", 60), torch.linspace(0, 3, 60)
    guided = head.sample(z, noise, null, scale)
    wanted = head.sample(null + scale[:, None] * (z - null), noise)
    torch.testing.assert_close(guided, wanted, rtol=1e-3, atol=1e-3)


def test_the_loss_of_the_exact_velocity_is_the_conditional_variance_and_any_other_costs_more():
    head, n = oracle(GAUSSIAN, 2), 20_000
    z = stream(7, "z", n).normal(2)
    x = z + STD * stream(7, "x", n).normal(2)
    with torch.no_grad():
        loss = head.loss(z, x, stream(7, "train", n))
        worse = head.loss(z + 0.3, x, stream(7, "train", n))
    t = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    covariance, variance = t * STD**2 - (1 - t), (t * STD) ** 2 + (1 - t) ** 2
    wanted = float(torch.trapezoid(STD**2 + 1 - covariance**2 / variance, t))
    assert abs(float(loss.mean()) - wanted) < 4 * float(loss.std()) / math.sqrt(n)
    assert float((worse - loss).mean()) > 0.03


def test_training_starts_from_the_standard_normal_and_reaches_every_parameter():
    head, z, x = FlowHead(6, Vectors(3), FlowOptions(width=32)), torch.randn(9, 6), torch.randn(9, 3)
    standard = torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    torch.testing.assert_close(head.log_prob(z, x, "ode", stream(0, "score", 9)).nats_M, standard)
    head = random_head(3)
    head.loss(z, x, stream(0, "train", 9)).mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_a_short_training_brings_the_density_near_the_target():
    torch.manual_seed(0)
    head = FlowHead(1, Vectors(2), FlowOptions(width=32, depth=2))
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3)
    z = (torch.arange(128) % 2 * 2.0 - 1)[:, None]
    for iteration in range(300):
        loss = head.loss(z, z + STD * torch.randn(128, 2), stream(iteration, "train", 128)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    z = z.repeat(4, 1)
    x = z + STD * torch.randn(512, 2)
    log_p = torch.distributions.Normal(z, STD).log_prob(x).sum(-1)
    excess = log_p - head.log_prob(z, x, "ode", stream(0, "score", 512)).nats_M
    assert -0.05 < excess.mean() < 0.3, excess.mean()
    sample = head.sample(z, stream(0, "sample", 512)) - z
    assert sample.mean().abs() < 0.15 and abs(sample.std() - STD) < 0.1, (sample.mean(), sample.std())


def test_what_it_has_not_is_refused():
    head = random_head(2)
    with pytest.raises(Unsupported, match="'bound'"):
        head.log_prob(torch.zeros(1, 6), torch.zeros(1, 2), "bound", stream(0, "score", 1))
    with pytest.raises(Unsupported, match="entropy"):
        head.entropy(torch.zeros(1, 6))
    with pytest.raises(UserError, match="width"):
        FlowOptions(width=0)
    with pytest.raises(UserError, match="tolerance"):
        FlowSampling(tolerance=1.0)


@pytest.mark.parametrize("solver", ["heun", "rk45"])
def test_guidance_acts_within_its_times_alone(solver):
    torch.manual_seed(0)
    head = FlowHead(4, Vectors(2), FlowOptions(width=16, depth=1))
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.2 * torch.randn_like(p))
    z, null, noise = torch.randn(5, 4), torch.randn(5, 4), stream(0, "sample", 5)

    def draw(interval: str, guidance: float | torch.Tensor) -> torch.Tensor:
        head.sampling = FlowSampling(solver=solver, steps=20, tolerance=1e-3, guidance_interval=interval)
        return head.sample(z, noise, null, guidance)

    whole = draw("", 3.0)
    torch.testing.assert_close(draw("0-1", 3.0), whole)
    torch.testing.assert_close(draw("0-1", torch.full((5,), 3.0)), whole)
    part = draw("0.3-0.6", torch.full((5,), 3.0))
    assert not torch.allclose(part, whole, atol=1e-3) and not torch.allclose(part, draw("", 1.0), atol=1e-3)
    with pytest.raises(UserError, match="times is written FROM-TO"):
        FlowSampling(guidance_interval="0.5-2")

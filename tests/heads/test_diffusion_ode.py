"""The density of the diffusion head's probability-flow ODE, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.tokens import Vectors
from mar.heads.base import replaced_options
from mar.heads.diffusion import DiffusionHead, DiffusionOptions, DiffusionSampling
from mar.heads.diffusion_likelihood import ContinuousTime, DiffusionScoring
from mar.heads.diffusion_process import betas
from tests.heads.continuous import GAUSSIAN, STD, TWO, Mixture, log_prob, mass
from tests.heads.diffusion_oracle import random_head


class Oracle(nn.Module):
    """E[eps | x_t] at any fractional timestep; the context is the mixture's shift."""

    def __init__(self, head: DiffusionHead, target: Mixture) -> None:
        super().__init__()
        self.cond_embed, self.target = nn.Identity(), target
        abar = np.cumprod(1 - betas(head.options.schedule, head.options.timesteps).numpy())
        self.log_snr = np.log(abar / (1 - abar))

    def noise_scale(self, t: float) -> float:
        """Deviation of the noise relative to the signal, the log signal-to-noise ratio interpolated linearly."""
        return math.exp(-0.5 * np.interp(t, np.arange(len(self.log_snr)), self.log_snr))

    def forward(self, x_NE: torch.Tensor, t_N: torch.Tensor, shift_NE: torch.Tensor) -> torch.Tensor:
        scale_N1 = torch.tensor([self.noise_scale(t) for t in t_N.tolist()], dtype=torch.float64)[:, None]
        signal_N1 = (1 + scale_N1**2).rsqrt()
        _, eps_NE = self.target.posterior(x_NE.double(), shift_NE.double(), signal_N1, signal_N1 * scale_N1)
        return torch.cat([eps_NE, torch.zeros_like(eps_NE)], 1).float()


def oracle(target: Mixture, channels: int, schedule: str = "cosine", **scoring) -> DiffusionHead:
    head = DiffusionHead(channels, Vectors(channels), DiffusionOptions(width=16, depth=1, schedule=schedule))  # pyright: ignore
    head.net = Oracle(head, target)  # pyright: ignore[reportAttributeAccessIssue]
    head.scoring = DiffusionScoring(**scoring)
    return head


@pytest.mark.parametrize("target", [GAUSSIAN, TWO])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "scoring",
    [
        {},
        {"solver": "rk4", "steps": 60},
        {"solver": "heun", "steps": 400},
        {"t_min": 20.0},
        {"t_min": 150.5},
    ],
)
def test_the_density_of_the_exact_score_is_that_of_the_blurred_target(scoring, channels, target):
    """From the very last timestep, where nothing of the target is left and N(0, 1) is the chain's marginal."""
    head = oracle(target, channels, **scoring)
    head.sampling = DiffusionSampling(start=999)
    z, x = 0.5 * stream(0, "z", 40).normal(channels), stream(0, "x", 40).normal(channels)
    result = head.log_prob(z, x, "ode", stream(0, "score", 40))
    one = torch.ones(1, 1, dtype=torch.float64)
    blur = head.net.noise_scale(head.scoring.t_min)  # pyright: ignore[reportCallIssue]
    wanted = target.log_density(x.double(), z.double(), one, blur * one)
    assert result.kind == "ode" and not result.estimate
    assert result.settings == {"t_min": head.scoring.t_min, **head.scoring.settings()}
    torch.testing.assert_close(result.nats_M.double(), wanted, rtol=0, atol=5e-3)
    assert (result.nats_M - wanted).abs().mean() < 1e-3


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("t_min", [0.0, 333.3])
def test_the_density_of_a_gaussian_is_exact_where_its_start_is_reckoned_with(t_min, schedule):
    """Its flow keeps (x - mean) / deviation, so that N(0, 1) at the start has a closed form at t_min."""
    head = oracle(GAUSSIAN, 2, schedule, t_min=t_min, tolerance=1e-6)
    z, x = stream(1, "z", 40).normal(2), stream(1, "x", 40).normal(2)

    def marginal(timestep: float) -> tuple[float, float]:
        """Signal, and deviation of x_t."""
        scale = head.net.noise_scale(timestep)  # pyright: ignore[reportCallIssue]
        signal = 1 / math.sqrt(1 + scale**2)
        return signal, signal * math.sqrt(STD**2 + scale**2)

    (signal, deviation), (last_signal, last_deviation) = marginal(t_min), marginal(head.start)
    last_x = last_signal * z.double() + last_deviation / deviation * signal * (x.double() - z.double())
    change = math.log(last_deviation / deviation * signal)
    wanted = (torch.distributions.Normal(0.0, 1.0).log_prob(last_x) + change).sum(1)
    nats = head.log_prob(z, x, "ode", stream(0, "score", 40)).nats_M.double()
    torch.testing.assert_close(nats, wanted, rtol=0, atol=2e-4)


@pytest.mark.parametrize("channels, half_width, points", [(1, 12.0, 601), (2, 6.0, 91)])
def test_the_density_of_a_random_network_integrates_to_one(channels, half_width, points):
    """From a start in the middle: the errors of a random network spread the whole chain over hundreds."""
    head = random_head(channels=channels)
    head.sampling = DiffusionSampling(start=400)
    head.scoring = DiffusionScoring(solver="rk4", steps=20)
    for z in stream(1, "z", 3 - channels).normal(6):
        assert mass(head, z, channels, half_width, points) == pytest.approx(1, abs=1e-3)
        assert log_prob(head, z, torch.zeros(1, channels)) != pytest.approx(-0.5 * channels * math.log(2 * math.pi))


def test_adaptive_and_fixed_solvers_agree():
    head, z, x = random_head(timesteps=100), stream(2, "z", 20).normal(6), stream(2, "x", 20).normal(3)
    nats = []
    adaptive, rk4 = DiffusionScoring(tolerance=1e-6), DiffusionScoring(solver="rk4", steps=100)
    for head.scoring in (adaptive, rk4, DiffusionScoring(solver="heun", steps=400)):
        nats.append(head.log_prob(z, x, "ode", stream(0, "score", 20)).nats_M)
    torch.testing.assert_close(nats[1], nats[0], rtol=0, atol=2e-3)
    torch.testing.assert_close(nats[2], nats[0], rtol=0, atol=2e-3)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_continuous_time_passes_through_the_timesteps_of_the_chain(schedule):
    head = DiffusionHead(1, Vectors(1), DiffusionOptions(width=16, depth=1, schedule=schedule, timesteps=50))
    time = ContinuousTime(head.process)
    fractional = torch.linspace(0, 49, 491, dtype=torch.float64)
    s = torch.tensor([time.s(float(t)) for t in fractional], dtype=torch.float64)
    torch.testing.assert_close(time.timestep(s), fractional, rtol=0, atol=1e-9)
    abar = torch.cumprod(1 - betas(schedule, 50), 0)
    torch.testing.assert_close(s[::10], -0.5 * (abar / (1 - abar)).log())
    assert (s.diff() > 0).all()


def test_a_whole_timestep_is_the_same_to_the_network_written_as_an_integer_or_not():
    net, t = random_head().net, torch.tensor([0, 3, 999])
    x, condition = torch.randn(3, 3), torch.randn(3, 32)
    assert torch.equal(net(x, t, condition), net(x, t.double(), condition))


def test_a_t_min_that_is_not_before_the_start_is_refused():
    head = random_head()
    head.scoring = DiffusionScoring(t_min=992.0)
    with pytest.raises(UserError, match="t_min must be less than the chain's start, timestep 992"):
        head.log_prob(torch.zeros(1, 6), torch.zeros(1, 3), "ode", stream(0, "score", 1))
    for wrong in ({"t_min": -1.0}, {"timesteps": 1}, {"tolerance": 0.0}):
        with pytest.raises(UserError), replaced_options(head, "scoring", wrong):
            pass

"""The diffusion head's training loss and bound, against densities that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mar.core.noise import stream
from mar.core.tokens import Vectors
from mar.heads.diffusion import DiffusionHead, DiffusionOptions, DiffusionSampling
from mar.heads.diffusion_likelihood import log_density_bound
from mar.heads.diffusion_process import betas
from tests.heads.diffusion_oracle import STD, gaussian_head, random_head


def excess_nats(head: DiffusionHead, x: torch.Tensor, z: torch.Tensor, log_p: torch.Tensor) -> tuple[float, float]:
    """Mean of log p - bound over tokens, and its standard error."""
    difference = log_p - head.log_prob(z, x, "bound", stream(1, "score", len(x))).nats_M
    return float(difference.mean()), float(difference.std() / math.sqrt(len(x)))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bound_steps", [0, 30])
def test_the_bound_is_tight_exactly_where_the_reverse_chain_is_exact(channels, bound_steps):
    torch.manual_seed(0)
    mean = torch.tensor([0.7, -1.2])[:channels].expand(3000, -1)
    x = mean + STD * torch.randn(3000, channels)
    log_p = torch.distributions.Normal(mean, STD).log_prob(x).sum(-1)
    sampling = DiffusionSampling(bound_steps=bound_steps)
    exact, smallest = (gaussian_head(channels, sampling, variance, timesteps=200) for variance in (True, False))
    exact.net.process = exact.chain(bound_steps)  # pyright: ignore[reportArgumentType]
    assert exact.log_prob(mean[:2], x[:2], "bound", stream(1, "score", 2)).evaluations == (bound_steps or 198)
    excess, error = excess_nats(exact, x, mean, log_p)
    assert abs(excess) < 4 * error < 0.25
    assert excess_nats(smallest, x, mean, log_p)[0] > excess + 0.02  # too small a variance costs, in every chain


@pytest.mark.parametrize("channels", [1, 2])
def test_the_bound_of_a_mixture_is_below_its_log_density_and_near(channels):
    """Tokens at the corners -1 and 1 of a cube, blurred: reverse steps are not Gaussian, the bound not tight."""
    torch.manual_seed(0)
    head = DiffusionHead(1, Vectors(channels), DiffusionOptions(timesteps=300))
    abar = torch.cumprod(1 - betas("cosine", 300), 0)

    def log_density(x_NE: torch.Tensor, abar_N1: torch.Tensor) -> torch.Tensor:
        scale = (abar_N1 * STD**2 + 1 - abar_N1).sqrt()
        each = [torch.distributions.Normal(sign * abar_N1.sqrt(), scale).log_prob(x_NE) for sign in (-1, 1)]
        return torch.logaddexp(*each) - math.log(2)

    class Mixture(nn.Module):
        cond_embed = nn.Identity()

        def forward(self, x_NE: torch.Tensor, t_N: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            abar_N1 = abar[t_N][:, None].float()
            with torch.enable_grad():
                x_NE = x_NE.requires_grad_()
                (score,) = torch.autograd.grad(log_density(x_NE, abar_N1).sum(), x_NE)
            return torch.cat([-(1 - abar_N1).sqrt() * score, torch.zeros_like(score)], -1)

    head.net = Mixture()  # pyright: ignore[reportAttributeAccessIssue]
    x = torch.randint(0, 2, (3000, channels)) * 2 - 1 + STD * torch.randn(3000, channels)
    log_p = log_density(x, torch.ones(3000, 1)).sum(-1)
    excess, error = excess_nats(head, x, torch.zeros(3000, 1), log_p)
    assert excess - 3 * error > 0 and excess < 0.4 * channels, (excess, error)


def test_the_bound_does_not_depend_on_how_it_is_cut_into_evaluations():
    head, z, x, noise = random_head(timesteps=40), torch.randn(7, 6), torch.randn(7, 3), stream(0, "score", 7)
    whole, chain = head.log_prob(z, x, "bound", noise).nats_M, head.chain(head.sampling.bound_steps)
    for rows in (3, 20):
        nats_M = log_density_bound(head.net, chain, z, x, noise, len(chain), rows)
        torch.testing.assert_close(nats_M, whole, rtol=1e-5, atol=1e-5)


def test_training_starts_from_a_prediction_of_zero_and_reaches_every_parameter():
    torch.manual_seed(0)
    head = DiffusionHead(6, Vectors(3), DiffusionOptions(width=32, depth=2))
    z, x, noise = torch.randn(50, 6), torch.randn(50, 3), stream(0, "train", 50)
    assert not head.net(x, torch.zeros(1), head.net.cond_embed(z)).any()
    head = random_head()
    loss = head.loss(z, x, noise)
    assert loss.shape == (50,)
    loss.mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("last_term", ["gaussian", "discretised"])
def test_the_bound_trains_the_variance_and_the_squared_error_trains_the_noise(last_term):
    head = random_head(last_term=last_term)
    z, x_0, eps = torch.randn(8, 6), torch.randn(8, 3), torch.randn(8, 3)
    t = torch.tensor([0, 0, 1, 5, 50, 500, 998, 999])
    losses = head.losses(head.net.cond_embed(z), x_0, t, eps)
    weight = head.net.final_layer.linear.weight
    (mse,) = torch.autograd.grad(losses.mse_N.sum(), weight, retain_graph=True)
    (vb,) = torch.autograd.grad(losses.vb_N.sum(), weight)
    assert mse[:3].any() and not mse[3:].any()
    assert vb[3:].any() and not vb[:3].any()


def test_a_short_training_brings_bound_and_samples_near_the_target():
    torch.manual_seed(0)
    head = DiffusionHead(1, Vectors(2), DiffusionOptions(width=32, depth=2))
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3)
    z = (torch.arange(128) % 2 * 2.0 - 1)[:, None]
    for iteration in range(300):
        x = z + STD * torch.randn(128, 2)
        loss = head.loss(z, x, stream(iteration, "train", 128)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = z + STD * torch.randn(128, 2)
    log_p = torch.distributions.Normal(z, STD).log_prob(x).sum(-1)
    head.sampling = DiffusionSampling(steps=30, bound_steps=300)
    excess, error = excess_nats(head, x, z, log_p)
    assert -3 * error < excess < 0.8, (excess, error)
    sample = head.sample(z, stream(0, "sample", 128)) - z
    assert sample.mean().abs() < 0.15 and abs(sample.std() - STD) < 0.15, (sample.mean(), sample.std())

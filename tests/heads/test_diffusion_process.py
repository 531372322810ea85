"""The chain's coefficients against Gaussian algebra done another way."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from mar.core.errors import UserError
from mar.heads.diffusion_process import Process, betas, discretised_nats, respaced_timesteps, spaced_timesteps

CHAINS = [(schedule, timesteps) for schedule in ("cosine", "linear") for timesteps in (None, [0, 3, 40, 41, 90])]


@pytest.mark.parametrize("schedule, timesteps", CHAINS)
def test_reverse_is_bayes_rule_when_the_noise_is_known(schedule, timesteps):
    """q(x_{t-1} | x_t, x_0) by multiplying q(x_t | x_{t-1}) and q(x_{t-1} | x_0) as precisions."""
    process = Process(schedule, 100, timesteps)
    abar = torch.cumprod(1 - betas(schedule, 100), 0)[process.timesteps]
    x_0, eps = torch.tensor([[0.7]]).double(), torch.tensor([[-1.3]]).double()
    for index in range(1, len(process)):
        alpha, before = abar[index] / abar[index - 1], abar[index - 1]
        x_t = process.diffuse(x_0, eps, index)
        precision = alpha / (1 - alpha) + 1 / (1 - before)
        mean = (alpha.sqrt() * x_t / (1 - alpha) + before.sqrt() * x_0 / (1 - before)) / precision
        ours, log_variance = process.reverse(x_t, eps, torch.tensor(-1.0), index)
        torch.testing.assert_close(ours, mean, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(log_variance.double(), -precision.log(), rtol=1e-6, atol=1e-6)
        assert process.reverse(x_t, eps, torch.tensor(1.0), index)[1] == pytest.approx(math.log(1 - alpha), abs=1e-6)


@pytest.mark.parametrize("schedule, timesteps", CHAINS)
def test_bound_terms_are_divergences_of_gaussians(schedule, timesteps):
    torch.manual_seed(0)
    process = Process(schedule, 100, timesteps)
    n = len(process)
    index = torch.arange(n)
    x_0, eps, predicted = torch.randn(n, 3), torch.randn(n, 3), torch.randn(n, 3)
    share = torch.rand(n, 3) * 2 - 1
    x_t = process.diffuse(x_0, eps, index)
    mean, log_variance = process.reverse(x_t, predicted, share, index)
    true_mean, true_log_variance = process.reverse(x_t, eps, -torch.ones(n, 3), index)
    p = torch.distributions.Normal(mean.double(), (0.5 * log_variance.double()).exp())
    q = torch.distributions.Normal(true_mean.double(), (0.5 * true_log_variance.double()).exp())
    wanted = torch.distributions.kl_divergence(q, p)
    wanted[0] = -p.log_prob(x_0.double())[0]
    ours = process.bound_terms(x_0, eps, predicted, share, index)
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-3, atol=1e-3)


def test_prior_term_is_the_divergence_from_a_standard_normal():
    process, x_0 = Process("linear", 50), torch.linspace(-3, 3, 7)[:, None]
    abar = torch.cumprod(1 - betas("linear", 50), 0)[-1]
    q = torch.distributions.Normal(abar.sqrt() * x_0.double(), (1 - abar).sqrt())
    p = torch.distributions.Normal(torch.zeros(()).double(), 1.0)
    torch.testing.assert_close(process.prior_nats(x_0), torch.distributions.kl_divergence(q, p))


def test_an_index_for_each_row_is_the_same_as_one_at_a_time():
    torch.manual_seed(0)
    process, x, eps = Process("cosine", 1000), torch.randn(4, 2), torch.randn(4, 2)
    index = torch.tensor([0, 7, 500, 999])
    together = process.diffuse(x, eps, index)
    alone = torch.cat([process.diffuse(x[i : i + 1], eps[i : i + 1], int(t)) for i, t in enumerate(index)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("mean, log_scale", [(0.0, -1.0), (0.9, -3.0), (-3.0, 0.5)])
def test_discretised_probabilities_of_the_256_levels_sum_to_one(mean, log_scale):
    level = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    nats = discretised_nats(level, torch.full_like(level, mean), torch.full_like(level, log_scale))
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("total, count", [(1000, 21), (1000, 100), (1000, 1000), (100, 2)])
def test_respaced_chains_keep_both_ends(total, count):
    timesteps = spaced_timesteps(total, count)
    assert len(set(timesteps)) == count and timesteps[0] == 0 and timesteps[-1] == total - 1
    gaps = {b - a for a, b in pairwise(timesteps)}
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("timesteps", [[5], [3, 3], [4, 2], [-1, 5], [0, 100]])
def test_impossible_chains_are_refused(timesteps):
    with pytest.raises(UserError, match="increasing"):
        Process("cosine", 100, timesteps)


@pytest.mark.parametrize("count", [1, 101])
def test_impossible_counts_are_refused(count):
    with pytest.raises(UserError, match="2 to 100"):
        spaced_timesteps(100, count)


# of space_timesteps (openai/improved-diffusion)
RESPACED = {
    (1000, "ddim50"): list(range(0, 1000, 20)),
    (1000, "ddim7"): [0, 143, 286, 429, 572, 715, 858],
    (1000, "7"): [0, 166, 333, 500, 666, 832, 999],
    (1001, "4,1,2"): [0, 111, 222, 333, 334, 668, 1000],
    (300, "10,15,20"): [
        0, 11, 22, 33, 44, 55, 66, 77, 88, 99, 100, 107, 114, 121, 128, 135, 142, 149, 157, 164, 171, 178, 185, 192,
        199, 200, 205, 210, 216, 221, 226, 231, 236, 242, 247, 252, 257, 263, 268, 273, 278, 283, 289, 294, 299,
    ],
}  # fmt: skip


@pytest.mark.parametrize("total, text", RESPACED)
def test_respacings_are_those_of_the_published_code(total, text):
    assert respaced_timesteps(total, text) == RESPACED[total, text]


@pytest.mark.parametrize(
    "text, message",
    [("ddim60", "choose ddim59"), ("600,10", "has no 600"), ("ten", "written"), ("ddim", "written"), ("1,", "written")],
)
def test_impossible_respacings_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        respaced_timesteps(1000, text)

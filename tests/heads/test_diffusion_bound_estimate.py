"""The bound estimated from a few timesteps: unbiased, and better than as many timesteps drawn at random."""

from __future__ import annotations

import math

import pytest
import torch

from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead, CategoricalOptions
from mar.heads.diffusion_likelihood import DiffusionScoring, bound_terms, estimated_terms, log_density_bound
from mar.heads.diffusion_process import Process
from tests.heads.diffusion_oracle import STD, gaussian_head, random_head

DRAWS = 20_000


@pytest.mark.parametrize("strata", [1, 4, 9])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_every_timestep_has_weight_one_in_expectation(schedule, strata):
    process = Process(schedule, 20)
    uniform = ((torch.arange(100_000) + 0.5) / 100_000)[:, None].expand(-1, strata)
    index, weight = process.stratified(uniform)
    mean = torch.zeros(20, dtype=torch.float64).index_add_(0, index.reshape(-1), weight.reshape(-1)) / len(uniform)
    torch.testing.assert_close(mean[1:], torch.ones(19, dtype=torch.float64), rtol=2e-3, atol=2e-3)
    assert mean[0] == 0  # the last term of the bound is not drawn: it is always there


def test_each_stratum_has_an_equal_share_of_the_log_signal_to_noise_ratio():
    process = Process("cosine", 200)
    log_snr = 2 * (process.table[0] / process.table[1]).log()
    index, _ = process.stratified(stream(0, "timestep", 500).uniform(5))
    gone = (log_snr[0] - log_snr[index]) / (log_snr[0] - log_snr[-1])  # after this term
    before = (log_snr[0] - log_snr[index - 1]) / (log_snr[0] - log_snr[-1])
    low = torch.arange(5) / 5
    assert (gone >= low - 1e-9).all() and (before <= low + 0.2 + 1e-9).all()
    assert len(index[:, 2].unique()) > 10


@pytest.mark.parametrize("timesteps, drawn", [(40, 2), (40, 5), (200, 16)])
def test_the_mean_of_many_estimates_is_the_bound(timesteps, drawn):
    head = random_head(timesteps=timesteps)
    z, x = stream(1, "z", 1).normal(6).expand(DRAWS, -1), stream(1, "x", 1).normal(3).expand(DRAWS, -1)
    process = head.chain()
    estimate = estimated_terms(head.net, process, z, x, stream(2, "score", DRAWS), drawn)
    whole = bound_terms(head.net, process, z[:2000], x[:2000], stream(3, "score", 2000)).double().sum(1)
    error = math.sqrt(float(estimate.var()) / DRAWS + float(whole.var()) / 2000)
    assert abs(float(estimate.mean() - whole.mean())) < 4 * error
    assert error < 0.02 * float(whole.mean())


def test_strata_make_an_estimate_better_than_independent_draws():
    head, drawn = gaussian_head(channels=2, timesteps=200), 9
    process = head.chain()
    head.net.process = process  # pyright: ignore[reportArgumentType]
    z, x = torch.zeros(4000, 2), stream(1, "x", 1).normal(2).expand(4000, -1)
    noise = stream(2, "score", 4000)
    stratified = estimated_terms(head.net, process, z, x, noise, drawn)
    alone = [estimated_terms(head.net, process, z, x, noise.at(draw=0).at(f"{i}"), 2) for i in range(drawn - 1)]
    independent = torch.stack(alone).mean(0)
    assert stratified.std() < 0.8 * independent.std()


@pytest.mark.parametrize("drawn", [3, 12])
def test_the_estimate_lies_above_the_negative_log_density_in_expectation(drawn):
    torch.manual_seed(0)
    head = gaussian_head(channels=2, exact_variance=False, timesteps=200)
    head.scoring = DiffusionScoring(timesteps=drawn)
    mean = torch.tensor([0.7, -1.2]).expand(DRAWS, -1)
    x = mean + STD * torch.randn(DRAWS, 2)
    result = head.log_prob(mean, x, "bound", stream(1, "score", DRAWS))
    excess = torch.distributions.Normal(mean, STD).log_prob(x).sum(1) - result.nats_M
    assert result.evaluations == drawn
    assert float(excess.mean()) > 4 * float(excess.std()) / math.sqrt(DRAWS)


def test_a_bound_that_depends_on_drawn_noise_is_marked_as_an_estimate():
    head, z, x, noise = random_head(timesteps=40), torch.randn(4, 6), torch.randn(4, 3), stream(0, "score", 4)
    whole = head.log_prob(z, x, "bound", noise)
    head.scoring = DiffusionScoring(timesteps=5)
    few = head.log_prob(z, x, "bound", noise)
    assert whole.estimate and few.estimate and not head.log_prob(z, x, "ode", noise).estimate
    chain = len(head.chain())
    assert whole.settings == {"bound_steps": chain, "timesteps": chain}
    assert few.settings == {"bound_steps": chain, "timesteps": 5}
    categorical = CategoricalHead(6, Categories(3), CategoricalOptions())
    assert not categorical.log_prob(z, torch.zeros(4, dtype=torch.int64), "exact", noise).estimate


def test_as_many_timesteps_as_the_chain_has_are_the_whole_bound():
    head, z, x, noise = random_head(timesteps=40), torch.randn(4, 6), torch.randn(4, 3), stream(0, "score", 4)
    whole = head.log_prob(z, x, "bound", noise).nats_M
    head.scoring = DiffusionScoring(timesteps=1000)
    assert torch.equal(head.log_prob(z, x, "bound", noise).nats_M, whole)


def test_an_estimate_does_not_depend_on_its_batch_or_how_it_is_cut():
    head, z, x, noise = random_head(timesteps=40), torch.randn(7, 6), torch.randn(7, 3), stream(0, "score", 7)
    head.scoring = DiffusionScoring(timesteps=6)
    whole = head.log_prob(z, x, "bound", noise).nats_M
    alone = [head.log_prob(z[i : i + 1], x[i : i + 1], "bound", noise.rows(slice(i, i + 1))).nats_M for i in range(7)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-5, atol=1e-5)
    cut = log_density_bound(head.net, head.chain(head.sampling.bound_steps), z, x, noise, 6, rows=13)
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)

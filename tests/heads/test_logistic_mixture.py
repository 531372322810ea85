"""The discretised logistic mixture against differences of the logistic CDF in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalSampling
from mar.heads.logistic_mixture import LogisticMixtureHead, LogisticMixtureOptions, log_bins

LEVELS = [2, 17, 256]
DRAWS = 20_000


def make(levels: int, components: int = 3, seed: int = 0) -> LogisticMixtureHead:
    torch.manual_seed(seed)
    return LogisticMixtureHead(4, Categories(levels), LogisticMixtureOptions(components)).requires_grad_(False)


def direct(head: LogisticMixtureHead, z: torch.Tensor) -> np.ndarray:
    """(M, V): probabilities as differences of the mixture's CDF at the edges of the bins, -inf and inf included."""
    weight, mean, scale = head.mixture(z).double().chunk(3, dim=-1)
    scale = torch.nn.functional.softplus(scale) + head.options.smallest_scale
    levels = head.token.vocabulary
    edges = np.append(np.append(-np.inf, np.linspace(-1, 1, 2 * levels - 1)[1::2]), np.inf)
    cdf = stats.logistic.cdf(edges, loc=mean.numpy()[..., None], scale=scale.numpy()[..., None])
    return (weight.softmax(-1).numpy()[..., None] * np.diff(cdf)).sum(1)


def assert_frequencies(x: torch.Tensor, p: np.ndarray) -> None:
    expected = p / p.sum() * len(x)
    often = expected >= 5  # the others make one class
    count = np.bincount(x.numpy(), minlength=len(p))
    if expected[~often].sum() >= 1:
        count, expected = (np.append(n[often], n[~often].sum()) for n in (count, expected))
    else:
        count, expected = count[often], expected[often] * count[often].sum() / expected[often].sum()
    assert stats.chisquare(count, expected).pvalue > 1e-3


@pytest.mark.parametrize("levels", LEVELS)
def test_probabilities_are_differences_of_the_cdf_and_sum_to_one(levels):
    head, z = make(levels), 2 * stream(0, "z", 20).normal(4)
    p = head.log_probabilities(z).double().exp().numpy()
    np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(p, direct(head, z), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("levels", LEVELS)
def test_the_probability_of_one_level_is_that_among_all(levels):
    head, z = make(levels), stream(0, "z", 50).normal(4)
    x = (stream(0, "x", 50).uniform(1)[:, 0] * levels).long()
    wanted = head.log_probabilities(z).gather(1, x[:, None])[:, 0]
    result = head.log_prob(z, x, "exact", stream(0, "score", 50))
    torch.testing.assert_close(result.nats_M, wanted)
    torch.testing.assert_close(head.loss(z, x, stream(0, "loss", 50)), -wanted)
    assert result.kind == "exact"


def test_two_levels_are_a_coin_with_the_logistic_cdf_at_zero():
    mean, scale = torch.tensor(0.7), torch.tensor(0.4)
    log_p = log_bins(torch.arange(2), 2, mean, scale)
    torch.testing.assert_close(log_p.exp(), torch.stack([(-mean / scale).sigmoid(), (mean / scale).sigmoid()]))


@pytest.mark.parametrize("mean, scale", [(-30.0, 0.01), (40.0, 0.3), (0.0, 1e-3), (0.3, 1e4)])
def test_log_masses_far_out_are_those_of_exact_arithmetic(mean, scale):
    """The reference takes differences of the nearer tail in float64, where it does not underflow."""
    level, width = torch.arange(17), 2 / 16
    found = log_bins(level, 17, torch.tensor(mean), torch.tensor(scale)).double().numpy()
    edges = (np.append(np.append(-np.inf, width * (np.arange(16) + 0.5) - 1), np.inf) - mean) / scale
    upper, lower = edges[1:], edges[:-1]
    right = lower > 0
    mass = np.where(right, stats.logistic.sf(lower), stats.logistic.cdf(upper))
    mass -= np.where(right, stats.logistic.sf(upper), stats.logistic.cdf(lower))
    wanted = np.log(np.clip(mass, 1e-320, None))
    seen = wanted > -600
    assert seen.any() and np.isfinite(found).all()
    np.testing.assert_allclose(found[seen], wanted[seen], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_probabilities_to_the_power_one_over_the_temperature(temperature):
    head, z = make(17), stream(3, "z", 1).normal(4)
    x = head.sample(z.expand(DRAWS, -1), stream(1, "sample", DRAWS), temperature=temperature)
    assert_frequencies(x, direct(head, z)[0] ** (1 / temperature))


def test_guidance_is_the_geometric_extrapolation_of_the_levels():
    head, z = make(17), stream(3, "z", 2).normal(4)
    p, null = direct(head, z)
    both = [z[i : i + 1].expand(DRAWS, -1) for i in (0, 1)]
    x = head.sample(both[0], stream(1, "sample", DRAWS), both[1], 2.0)
    assert_frequencies(x, null * (p / null) ** 2)


def test_greedy_and_temperature_zero_take_the_likeliest_level():
    head, z = make(17), stream(3, "z", 50).normal(4)
    likeliest = torch.from_numpy(direct(head, z).argmax(1))
    assert torch.equal(head.sample(z, stream(1, "sample", 50), temperature=0.0), likeliest)
    head.sampling = CategoricalSampling(greedy=True)
    assert torch.equal(head.sample(z, stream(1, "sample", 50)), likeliest)


def test_entropy_is_the_sum_over_the_levels():
    head, z = make(256), stream(3, "z", 10).normal(4)
    np.testing.assert_allclose(head.entropy(z).numpy(), stats.entropy(direct(head, z), axis=1), atol=1e-4)


def test_a_token_drawn_alone_is_the_token_drawn_in_a_batch():
    head, z, noise = make(17), stream(3, "z", 64).normal(4), stream(3, "sample", 64)
    batch = head.sample(z, noise)
    assert all(head.sample(z[i : i + 1], noise.rows(slice(i, i + 1))) == batch[i] for i in range(64))


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_loss_and_gradients_are_finite_for_extreme_contexts(size):
    head = make(256).requires_grad_(True)
    z = (size * stream(4, "z", 64).normal(4)).requires_grad_()
    loss = head.loss(z, torch.arange(0, 256, 4), stream(0, "loss", 64))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(g is not None and g.isfinite().all() for g in (z.grad, head.mixture.weight.grad))


def test_more_tokens_than_are_evaluated_at_once_change_nothing():
    head, z = make(5), stream(0, "z", 2100).normal(4)
    torch.testing.assert_close(head.log_probabilities(z)[-3:], head.log_probabilities(z[-3:]))
    assert head.log_probabilities(z[:0]).shape == (0, 5)


def test_impossible_options_are_refused():
    with pytest.raises(UserError, match="components"):
        LogisticMixtureOptions(components=0)
    with pytest.raises(UserError, match="smallest_scale"):
        LogisticMixtureOptions(smallest_scale=0.0)
    with pytest.raises(UserError, match="2 levels"):
        make(1)

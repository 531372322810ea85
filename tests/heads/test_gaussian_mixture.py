"""The Gaussian mixture head against closed forms of torch.distributions, in one and more dimensions."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.tokens import Vectors
from mar.heads.gaussian_mixture import GaussianMixtureHead, GaussianMixtureOptions
from mar.verification.heads import verify_head

DRAWS = 20_000
COVARIANCES = ["diagonal", "full"]


def make(channels: int, covariance: str = "diagonal", components: int = 3) -> GaussianMixtureHead:
    """A head with unequal weights and live slopes."""
    torch.manual_seed(0)
    options = GaussianMixtureOptions(components, covariance)  # pyright: ignore[reportArgumentType]
    head = GaussianMixtureHead(4, Vectors(channels), options).requires_grad_(False)
    head.log_weight.bias.copy_(torch.linspace(1.0, -1.0, components))
    if head.slope is not None:
        head.slope.weight.normal_(std=0.3)
        head.slope.bias.normal_(std=0.7)
    return head


def covariances(head: GaussianMixtureHead, z: torch.Tensor) -> torch.Tensor:
    """(M, K, E, E) float64: the inverse of (I + slope)ᵀ diag(scale)⁻² (I + slope)."""
    mixture = head.mixture(z)
    lower = torch.eye(head.token.width, dtype=torch.float64)
    if mixture.slope_MKEE is not None:
        lower = lower + mixture.slope_MKEE.double()
    whiten = lower / mixture.scale_MKE.double()[..., None]
    return torch.linalg.inv(whiten.mT @ whiten)


def reference(head: GaussianMixtureHead, z: torch.Tensor) -> distributions.MixtureSameFamily:
    mixture = head.mixture(z)
    return distributions.MixtureSameFamily(
        distributions.Categorical(logits=mixture.log_weight_MK.double()),
        distributions.MultivariateNormal(mixture.mean_MKE.double(), covariances(head, z)),
    )


def density(head: GaussianMixtureHead, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    noise = stream(0, "score", len(x))
    return head.log_prob(z.expand(len(x), -1), x.float(), "exact", noise).nats_M.double().exp()


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_density_is_that_of_torch_distributions(channels, covariance):
    head, z, x = make(channels, covariance), stream(0, "z", 40).normal(4), 2 * stream(0, "x", 40).normal(channels)
    result = head.log_prob(z, x, "exact", stream(0, "score", 40))
    assert result.kind == "exact"
    torch.testing.assert_close(result.nats_M.double(), reference(head, z).log_prob(x.double()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.loss(z, x, stream(0, "loss", 40)), -result.nats_M)


def test_a_full_covariance_correlates_channels():
    correlated = covariances(make(3, "full"), stream(0, "z", 5).normal(4))
    assert (correlated - torch.diag_embed(correlated.diagonal(dim1=-2, dim2=-1))).abs().max() > 0.1


def test_the_density_integrates_to_one_in_one_dimension():
    x = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    for z in stream(1, "z", 3).normal(4).split(1):
        assert float(torch.trapezoid(density(make(1), z, x[:, None]), x)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_density_integrates_to_one_in_two_dimensions(covariance):
    head, z, side = make(2, covariance), stream(1, "z", 1).normal(4), torch.linspace(-15, 15, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    mass = torch.trapezoid(torch.trapezoid(density(head, z, grid).reshape(401, 401), side), side)
    assert float(mass) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_samples_have_the_moments_of_the_mixture(covariance):
    head, z = make(3, covariance), stream(2, "z", 1).normal(4)
    x = head.sample(z.expand(DRAWS, -1), stream(5, "sample", DRAWS)).double()
    wanted, mixture = reference(head, z), head.mixture(z)
    weight, spread = mixture.log_weight_MK[0].double().exp(), mixture.mean_MKE[0].double() - wanted.mean[0]
    covariance_EE = torch.einsum("k,kef->ef", weight, covariances(head, z)[0] + spread[:, :, None] * spread[:, None])
    off = (x.mean(0) - wanted.mean[0]) / (covariance_EE.diagonal() / DRAWS).sqrt()
    assert off.abs().max() < 4
    scale = covariance_EE.diagonal().sqrt()
    assert ((torch.cov(x.T) - covariance_EE) / scale[:, None] / scale).abs().max() < 0.04


@pytest.mark.parametrize("channel", [0, 1])
def test_samples_follow_the_marginals_of_the_mixture(channel):
    head, z = make(2, "full"), stream(2, "z", 1).normal(4)
    x = head.sample(z.expand(DRAWS, -1), stream(6, "sample", DRAWS))[:, channel].numpy()
    mixture, deviation = head.mixture(z), covariances(head, z)[0, :, channel, channel].sqrt().numpy()
    weight, mean = mixture.log_weight_MK[0].exp().numpy(), mixture.mean_MKE[0, :, channel].numpy()

    def cdf(at: np.ndarray) -> np.ndarray:
        return (weight * stats.norm.cdf(at[:, None], mean, deviation)).sum(1)

    assert stats.kstest(x, cdf).pvalue > 1e-3


def test_temperature_scales_deviations_and_sharpens_the_weights():
    head, z, noise = make(2, "full", components=1), stream(2, "z", 1).normal(4), stream(7, "sample", 100)
    mean = head.mixture(z).mean_MKE[:, 0]
    warm, cold = (head.sample(z.expand(100, -1), noise, temperature=t) for t in (1.0, 0.5))
    torch.testing.assert_close(cold - mean, 0.5 * (warm - mean), rtol=1e-4, atol=1e-5)

    head = make(1)
    head.mean.weight.zero_()
    head.mean.bias.copy_(torch.tensor([-1e3, 0.0, 1e3]))
    x = head.sample(z.expand(DRAWS, -1), stream(8, "sample", DRAWS), temperature=0.5)[:, 0]
    p = head.mixture(z).log_weight_MK[0].double().exp() ** 2
    count = torch.bincount((x / 1e3).round().long() + 1, minlength=3)
    assert stats.chisquare(count.numpy(), (p / p.sum() * DRAWS).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_temperature_zero_is_the_mean_of_the_heaviest_component(covariance):
    head, z = make(2, covariance), stream(2, "z", 30).normal(4)
    mixture = head.mixture(z)
    wanted = mixture.mean_MKE[torch.arange(30), mixture.log_weight_MK.argmax(1)]
    torch.testing.assert_close(head.sample(z, stream(7, "sample", 30), temperature=0.0), wanted)


def test_guidance_of_one_component_of_equal_scale_is_guidance_of_the_density():
    """null (conditional / null)^g of two Gaussians of one deviation has its mean at null + g (conditional - null)."""
    head, z = make(1, components=1), stream(2, "z", 2).normal(4)
    head.scale.weight.zero_()
    (conditional, null), deviation = head.mixture(z).mean_MKE[:, 0, 0].tolist(), float(head.mixture(z).scale_MKE[0])
    both = [z[i : i + 1].expand(DRAWS, -1) for i in (0, 1)]
    x = head.sample(both[0], stream(8, "sample", DRAWS), both[1], 2.5)[:, 0]
    assert stats.kstest(x.numpy(), stats.norm(null + 2.5 * (conditional - null), deviation).cdf).pvalue > 1e-3


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_a_token_drawn_alone_is_the_token_drawn_in_a_batch(covariance):
    head, z, noise = make(3, covariance), stream(3, "z", 32).normal(4), stream(3, "sample", 32)
    alone = torch.cat([head.sample(z[i : i + 1], noise.rows(slice(i, i + 1))) for i in range(32)])
    torch.testing.assert_close(alone, head.sample(z, noise), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("size", [1e2, 1e5])
def test_loss_and_gradients_are_finite_for_extreme_contexts_and_tokens(covariance, size):
    head = make(4, covariance).requires_grad_(True)
    z = (size * stream(4, "z", 64).normal(4)).requires_grad_()
    loss = head.loss(z, size * stream(4, "x", 64).normal(4), stream(0, "loss", 64))
    loss.mean().backward()
    assert loss.isfinite().all()
    assert all(g is not None and g.isfinite().all() for g in (z.grad, *(p.grad for p in head.parameters())))


def test_a_scale_never_falls_below_the_smallest():
    head = make(2)
    head.scale.bias.fill_(-1e4)
    assert head.mixture(torch.zeros(1, 4)).scale_MKE.min() == pytest.approx(1e-3)


def test_full_covariances_keep_the_contract_of_a_head():
    class Full(GaussianMixtureHead):
        test_options: ClassVar[dict[str, Any]] = {"components": 2, "covariance": "full"}

    assert [verdict for verdict in verify_head(Full, "full") if not verdict.passed] == []


def test_what_it_has_not_is_refused():
    with pytest.raises(Unsupported, match="entropy"):
        make(2).entropy(torch.zeros(1, 4))
    with pytest.raises(Unsupported, match="bound"):
        make(2).log_prob(torch.zeros(1, 4), torch.zeros(1, 2), "bound", stream(0, "score", 1))
    with pytest.raises(UserError, match="components"):
        GaussianMixtureOptions(components=0)
    with pytest.raises(UserError, match="smallest_scale"):
        GaussianMixtureOptions(smallest_scale=-1.0)

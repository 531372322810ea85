"""A joint Gaussian on a grid, and a mixture of Gaussians for every token.

N examples · L tokens · E token channels · K components · M gathered tokens · R rows · D all L E channels
"""

from __future__ import annotations

import math

import torch

from mar.core.noise import Noise
from mar.core.tokens import Vectors
from mar.heads.base import Head
from mar.heads.gaussian_mixture import GaussianMixtureHead, GaussianMixtureOptions
from orderings import Grid
from tests.likelihood.closed_forms.joint import Joint, set_linear

_LOG_TAU = math.log(2.0 * math.pi)


class MixtureTokens(Joint):
    """Vector tokens whose conditionals are mixtures of ``components`` Gaussians: the context is their parameters."""

    token: Vectors
    components = 1

    @property
    def options(self) -> GaussianMixtureOptions:
        return GaussianMixtureOptions(self.components, "full" if self.token.width > 1 else "diagonal")

    @property
    def width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return sum(self._widths())

    def _widths(self) -> list[int]:
        channels = self.token.width
        return [self.components * n for n in (1, channels, channels, channels * (channels - 1) // 2)]

    def head(self) -> Head:
        """Its log-weights, means, scales and slopes are slices of the context vector."""
        head = GaussianMixtureHead(self.width, self.token, self.options)
        layers = [head.log_weight, head.mean, head.scale, head.slope]
        for layer, rows in zip(layers, torch.eye(self.width).split(self._widths()), strict=True):
            if layer is not None:
                set_linear(layer, rows)
        return head

    def raw_scale(self, scale: torch.Tensor) -> torch.Tensor:
        """What the head turns into ``scale``: the inverse of softplus."""
        above = scale - self.options.smallest_scale
        return above + (-torch.expm1(-above)).log()


class GridGaussian(MixtureTokens):
    """Nearby tokens correlate, in both channels; conditionals from the precision, marginals from the covariance."""

    shape, token = (4, 4), Vectors(2)

    def __init__(self) -> None:
        place_L2 = Grid(self.shape).coordinates().double()
        near_LL = torch.exp(-torch.cdist(place_L2, place_L2) / 2.0)
        channel_EE = torch.tensor([[1.0, 0.5], [0.5, 0.8]], dtype=torch.float64)
        self.covariance_DD = torch.kron(near_LL, channel_EE) + 0.1 * torch.eye(2 * len(near_LL))
        self.mean_D = torch.linspace(-1.0, 1.0, len(self.covariance_DD), dtype=torch.float64)

    def sample(self, noise: Noise) -> torch.Tensor:
        normal_ND = noise.normal(len(self.mean_D)).double()
        return (self.mean_D + normal_ND @ torch.linalg.cholesky(self.covariance_DD).T).unflatten(1, (-1, 2))

    def log_marginal(self, token: torch.Tensor, known_RL: torch.Tensor) -> torch.Tensor:
        known_RD = known_RL.repeat_interleave(2, 1)
        both_RDD = known_RD[:, :, None] & known_RD[:, None, :]
        # what is not known has variance one, no covariance and no deviation: it adds nothing but the constant
        covariance_RDD = torch.where(both_RDD, self.covariance_DD, torch.eye(len(self.mean_D)).double())
        deviation_RD = torch.where(known_RD, token.flatten(1) - self.mean_D, 0.0)
        root_RDD = torch.linalg.cholesky(covariance_RDD)
        white_RD = torch.linalg.solve_triangular(root_RDD, deviation_RD[..., None], upper=False)[..., 0]
        log_det_R = 2 * root_RDD.diagonal(dim1=1, dim2=2).log().sum(1)
        return -0.5 * (white_RD.square().sum(1) + log_det_R + known_RD.sum(1) * _LOG_TAU)

    def conditionals(self, token: torch.Tensor, known_ML: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
        known_MD = known_ML.repeat_interleave(2, 1)
        precision_DD = torch.linalg.inv(self.covariance_DD)
        deviation_MD = torch.where(known_MD, token.flatten(1) - self.mean_D, 0.0)
        pull_MD = torch.where(known_MD, 0.0, deviation_MD @ precision_DD)
        unknown_MDD = ~known_MD[:, :, None] & ~known_MD[:, None, :]
        inverse_MDD = torch.linalg.inv(torch.where(unknown_MDD, precision_DD, torch.eye(len(self.mean_D)).double()))
        mean_MD = self.mean_D - (inverse_MDD @ pull_MD[..., None])[..., 0]
        pair_M2 = 2 * index_M[:, None] + torch.arange(2)
        row_M1 = torch.arange(len(index_M))[:, None]
        covariance_MEE = inverse_MDD[row_M1[..., None], pair_M2[:, :, None], pair_M2[:, None, :]]
        first_M, both_M, second_M = covariance_MEE[:, 0, 0], covariance_MEE[:, 0, 1], covariance_MEE[:, 1, 1]
        slope_M = -both_M / first_M  # the second channel given the first
        scale_M2 = torch.stack([first_M, second_M - both_M.square() / first_M], 1).sqrt()
        weight_M1 = torch.zeros(len(index_M), 1)
        return torch.cat([weight_M1, mean_MD[row_M1, pair_M2], self.raw_scale(scale_M2), slope_M[:, None]], 1)

    def entropy(self, known_L: torch.Tensor) -> torch.Tensor:
        known_D = known_L.repeat_interleave(2)
        return 0.5 * (torch.logdet(self.covariance_DD[known_D][:, known_D]) + known_D.sum() * (1.0 + _LOG_TAU))

    def total_correlation(self, past_L: torch.Tensor, set_L: torch.Tensor) -> torch.Tensor:
        """½ [sum_l log det Σ_l − log det Σ_S], Σ the covariance of the set given the past (a Schur complement)."""
        past_D, set_D = past_L.repeat_interleave(2), set_L.repeat_interleave(2)
        past_past, past_set = self.covariance_DD[past_D][:, past_D], self.covariance_DD[past_D][:, set_D]
        covariance = self.covariance_DD[set_D][:, set_D] - past_set.T @ torch.linalg.solve(past_past, past_set)
        own = torch.stack([covariance[k : k + 2, k : k + 2] for k in range(0, len(covariance), 2)])
        return 0.5 * (torch.logdet(own).sum() - torch.logdet(covariance))


class SharedMixture(MixtureTokens):
    """One of K components for the whole grid, tokens independent given it: every conditional is a mixture."""

    shape, token, components = (2, 3, 2), Vectors(1), 3
    log_weight_K = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()

    def __init__(self) -> None:
        place_L = torch.arange(len(Grid(self.shape)), dtype=torch.float64)
        self.mean_KL = torch.stack([torch.sin(place_L), 1.5 * torch.cos(place_L), -0.1 * place_L])
        self.scale_KL = torch.stack([0.3 + 0.02 * place_L, 0.6 + 0.0 * place_L, 1.0 - 0.05 * place_L])

    def sample(self, noise: Noise) -> torch.Tensor:
        uniform_N1 = noise.at("component").uniform(1).double()
        component_N = (uniform_N1 >= self.log_weight_K.exp().cumsum(0)).sum(1).clamp(max=2)
        normal_NL = noise.at("value").normal(self.mean_KL.shape[1]).double()
        return (self.mean_KL[component_N] + self.scale_KL[component_N] * normal_NL)[..., None]

    def log_marginal(self, token: torch.Tensor, known_RL: torch.Tensor) -> torch.Tensor:
        normal = torch.distributions.Normal(self.mean_KL, self.scale_KL)
        nats_RKL = normal.log_prob(token[:, None, :, 0])
        return (self.log_weight_K + torch.where(known_RL[:, None], nats_RKL, 0.0).sum(-1)).logsumexp(-1)

    def conditionals(self, token: torch.Tensor, known_ML: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
        weight_MK = self.log_weight_K.exp().expand(len(index_M), -1)
        for place in range(known_ML.shape[1]):  # Bayes' rule, one known token after the other
            mean_K, scale_K = self.mean_KL[:, place], self.scale_KL[:, place]
            likelihood_MK = torch.exp(-0.5 * ((token[:, place] - mean_K) / scale_K).square()) / scale_K
            updated_MK = weight_MK * likelihood_MK
            weight_MK = torch.where(known_ML[:, place, None], updated_MK / updated_MK.sum(1, keepdim=True), weight_MK)
        mean_MK, scale_MK = self.mean_KL.T[index_M], self.scale_KL.T[index_M]
        return torch.cat([weight_MK.log(), mean_MK, self.raw_scale(scale_MK)], 1)

"""Gaussian mixture head: a token is drawn from one of K Gaussians, with its exact density.

M gathered tokens · D context width · E token channels · K components · P pairs of channels, E (E - 1) / 2

Tschannen et al. 2023, "GIVT: generative infinite-vocabulary transformers", section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.noise import Noise
from mar.core.options import POSITIVE, at_least
from mar.core.tokens import Vectors
from mar.heads.base import Head, HeadOptions, Scale, guided
from mar.heads.categorical import CategoricalSampling, draw


@dataclass(frozen=True)
class GaussianMixtureOptions(HeadOptions):
    components: int = 16
    covariance: Literal["diagonal", "full"] = "diagonal"  # full: K E (E - 1) / 2 more outputs a token
    smallest_scale: float = 1e-3  # of a channel given the ones before it; tokens have about unit variance
    bounds: ClassVar = {"components": at_least(1), "smallest_scale": POSITIVE}


class Mixture(NamedTuple):
    """The predicted parameters, float32.

    Channel e of component k is mean_e - sum_{f < e} slope_ef (x_f - mean_f) + scale_e * normal: the modified Cholesky
    decomposition of the precision, (I + S)ᵀ diag(scale)⁻² (I + S) with S strictly lower triangular (Pourahmadi 1999).
    Any covariance is one, and its density needs no triangular solve. No slopes: a diagonal covariance.
    """

    log_weight_MK: Tensor
    mean_MKE: Tensor
    scale_MKE: Tensor
    slope_MKEE: Tensor | None


class GaussianMixtureHead(Head):
    """Entropy is refused: that of a mixture has no closed form."""

    Options = GaussianMixtureOptions
    test_options: ClassVar[dict[str, Any]] = {"components": 2}
    tokens = Vectors
    likelihoods = frozenset({"exact"})
    default_likelihood = "exact"
    loss_is_nll = True

    token: Vectors

    def __init__(self, context_width: int, token: Vectors, options: GaussianMixtureOptions) -> None:
        super().__init__()
        self.token, self.options, self.sampling = token, options, self.Sampling()
        channels, pairs = token.width, token.width * (token.width - 1) // 2
        self.log_weight = nn.Linear(context_width, options.components)
        self.mean = nn.Linear(context_width, options.components * channels)
        self.scale = nn.Linear(context_width, options.components * channels)
        self.slope = None
        if options.covariance == "full" and pairs:
            self.slope = nn.Linear(context_width, options.components * pairs)
            nn.init.zeros_(self.slope.weight)  # every covariance starts diagonal
            nn.init.zeros_(self.slope.bias)
        nn.init.zeros_(self.log_weight.bias)
        nn.init.normal_(self.mean.bias)  # components start spread over tokens of unit variance
        nn.init.constant_(self.scale.bias, math.log(math.e - 1))  # softplus is 1

    def mixture(self, z_MD: Tensor) -> Mixture:
        """Weights, means, scales and slopes of the components."""
        shape = (len(z_MD), self.options.components, self.token.width)
        return Mixture(
            self.log_weight(z_MD).float().log_softmax(-1),
            self.mean(z_MD).float().reshape(shape),
            F.softplus(self.scale(z_MD).float()).reshape(shape) + self.options.smallest_scale,
            self._slopes(z_MD),
        )

    def _slopes(self, z_MD: Tensor) -> Tensor | None:
        if self.slope is None:
            return None
        channels = self.token.width
        row_P, column_P = torch.tril_indices(channels, channels, -1, device=z_MD.device)
        slope_MKP = self.slope(z_MD).float().unflatten(-1, (self.options.components, len(row_P)))
        slope_MKEE = slope_MKP.new_zeros(*slope_MKP.shape[:2], channels, channels)
        slope_MKEE[..., row_P, column_P] = slope_MKP
        return slope_MKEE

    def loss(self, z_MD: Tensor, x_M: Tensor, noise: Noise) -> Tensor:
        """-log p in nats, summed over channels."""
        log_weight_MK, mean_MKE, scale_MKE, slope_MKEE = self.mixture(z_MD)
        residual_MKE = x_M.float()[:, None] - mean_MKE
        if slope_MKEE is not None:  # a product and a sum, which autocast leaves in float32
            residual_MKE = residual_MKE + (slope_MKEE * residual_MKE[:, :, None]).sum(-1)
        log_normal_MKE = -0.5 * (residual_MKE / scale_MKE).square() - scale_MKE.log() - 0.5 * math.log(2 * math.pi)
        return -(log_weight_MK + log_normal_MKE.sum(-1)).logsumexp(-1)

    def sample(
        self, z_MD: Tensor, noise: Noise, z_null_MD: Tensor | None = None, guidance_M: Scale = 1, temperature: float = 1
    ) -> Tensor:
        """x_ME: a component, then its Gaussian.

        Temperature raises the components' weights to 1 / T and multiplies deviations by T (GIVT has both, as two
        settings); at 0 the sample is the mean of the heaviest component. Guidance extrapolates log-weights and means,
        component by component, and keeps the conditional covariances. The density null (conditional / null)^guidance
        has no closed form for mixtures (GIVT samples it by rejection); with one component and equal covariances this
        is that density.
        """
        log_weight_MK, mean_MKE, scale_MKE, slope_MKEE = self.mixture(z_MD)
        if z_null_MD is not None:
            null = self.mixture(z_null_MD)
            log_weight_MK = guided(log_weight_MK, null.log_weight_MK, guidance_M)
            mean_MKE = guided(mean_MKE.flatten(1), null.mean_MKE.flatten(1), guidance_M).reshape(mean_MKE.shape)
        component_M = draw(log_weight_MK, noise.at("component"), CategoricalSampling(), temperature)
        token_M = torch.arange(len(z_MD), device=z_MD.device)
        deviation_ME = temperature * scale_MKE[token_M, component_M] * noise.at("value").normal(self.token.width)
        if slope_MKEE is not None:  # (I + slope) deviation = scale * normal
            slope_MEE = slope_MKEE[token_M, component_M]
            solve = partial(torch.linalg.solve_triangular, upper=False, unitriangular=True)
            deviation_ME = solve(slope_MEE, deviation_ME[..., None])[..., 0]
        return mean_MKE[token_M, component_M] + deviation_ME

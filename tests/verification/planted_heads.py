"""Heads with one bug each, which verification must catch.

M gathered tokens · D width · E token channels
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from mar.core.noise import Noise
from mar.core.tokens import Vectors
from mar.heads.base import Head, LogProb
from mar.heads.categorical import CategoricalHead


class IgnoresTemperature(CategoricalHead):
    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        return super().sample(z_MD, noise, z_null_MD, guidance_M)


class SharperSamples(CategoricalHead):
    """Samples from other probabilities than it scores."""

    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        return super().sample(z_MD, noise, z_null_MD, guidance_M, 0.9 * temperature)


class OneDrawForAll(CategoricalHead):
    """Every token of a batch uses the first token's noise."""

    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        first = noise.rows(torch.zeros(len(noise), dtype=torch.int64))
        return super().sample(z_MD, first, z_null_MD, guidance_M, temperature)


class NotNormalised(CategoricalHead):
    """Forgets the softmax's denominator."""

    def log_prob(self, z_MD: torch.Tensor, x_M: torch.Tensor, kind: str, noise: Noise) -> LogProb:
        return LogProb(F.logsigmoid(self.logits(z_MD)).gather(1, x_M[:, None])[:, 0], "exact")


class MeanLoss(CategoricalHead):
    """A loss for the batch instead of one for each token."""

    def loss(self, z_MD: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        return super().loss(z_MD, x_M, noise).mean()


class EntropyInBits(CategoricalHead):
    def entropy(self, z_MD: torch.Tensor) -> torch.Tensor:
        return super().entropy(z_MD) / math.log(2)


class Gaussian(Head):
    """A right one: a diagonal Gaussian, with its density and a bound that lies ½ noise² below it."""

    tokens = Vectors
    likelihoods = frozenset({"exact", "bound"})
    default_likelihood = "exact"

    def __init__(self, context_width: int, token: Vectors, options: object) -> None:
        super().__init__()
        self.token, self.sampling = token, self.Sampling()
        self.parameters_of = nn.Linear(context_width, 2 * token.width)

    def _normal(self, z_MD: torch.Tensor) -> torch.distributions.Normal:
        mean_ME, log_scale_ME = self.parameters_of(z_MD).chunk(2, dim=-1)
        return torch.distributions.Normal(mean_ME, (0.3 * log_scale_ME).exp())

    def loss(self, z_MD: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        return -self._normal(z_MD).log_prob(x_M).sum(-1)

    def gap(self, noise: Noise) -> torch.Tensor:
        return 0.5 * noise.at("gap").normal(1)[:, 0].square()

    def log_prob(self, z_MD: torch.Tensor, x_M: torch.Tensor, kind: str, noise: Noise) -> LogProb:
        nats_M = -self.loss(z_MD, x_M, noise)
        return LogProb(nats_M - self.gap(noise) if kind == "bound" else nats_M, kind)

    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        normal = self._normal(z_MD)
        return normal.loc + temperature * normal.scale * noise.normal(self.token.width)


class BoundAbove(Gaussian):
    def gap(self, noise: Noise) -> torch.Tensor:
        return -super().gap(noise)


class ForgetsTheScale(Gaussian):
    """A Gaussian density without its log-scale."""

    def loss(self, z_MD: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        return super().loss(z_MD, x_M, noise) - self._normal(z_MD).scale.log().sum(-1)


class WideSamples(Gaussian):
    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        return super().sample(z_MD, noise, z_null_MD, guidance_M, 1.2 * temperature)

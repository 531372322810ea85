"""What the tests of continuous heads share: a mixture of Gaussians under linear noise, and masses of densities.

N rows · E token channels · K components
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mar.core.noise import stream
from mar.heads.base import Head

MEANS = (-1.2, 0.9)  # of the two components, in every channel
WEIGHTS = (0.3, 0.7)
STD = 0.4


@dataclass(frozen=True)
class Mixture:
    """Σ_k weight_k N(context + mean_k, STD²) over vectors, and the same after x = signal data + noise normal."""

    means: tuple[float, ...] = MEANS
    weights: tuple[float, ...] = WEIGHTS

    def _parts(self, x_NE, context_NE, signal_N1, noise_N1):
        """log(weight_k N(x; …)) and x's residual, for each component."""
        variance_N1 = (signal_N1 * STD) ** 2 + noise_N1**2
        residual_NEK = torch.stack([x_NE - signal_N1 * (context_NE + mean) for mean in self.means], -1)
        square_NK = (residual_NEK.square() / variance_N1[..., None]).sum(1)
        log_scale_N1 = 0.5 * x_NE.shape[1] * (2 * math.pi * variance_N1).log()
        return torch.tensor(self.weights).log() - 0.5 * square_NK - log_scale_N1, residual_NEK, variance_N1

    def log_density(self, x_NE, context_NE, signal_N1, noise_N1) -> torch.Tensor:
        return self._parts(x_NE, context_NE, signal_N1, noise_N1)[0].logsumexp(1)

    def posterior(self, x_NE, context_NE, signal_N1, noise_N1) -> tuple[torch.Tensor, torch.Tensor]:
        """E[data | x] and E[normal | x], each (N, E)."""
        log_p_NK, residual_NEK, variance_N1 = self._parts(x_NE, context_NE, signal_N1, noise_N1)
        p_N1K, scaled_NEK = log_p_NK.softmax(1)[:, None], residual_NEK / variance_N1[..., None]
        mean_NEK = torch.stack([context_NE + mean for mean in self.means], -1)
        data_NE = (p_N1K * (mean_NEK + signal_N1[..., None] * STD**2 * scaled_NEK)).sum(-1)
        return data_NE, (p_N1K * noise_N1[..., None] * scaled_NEK).sum(-1)


GAUSSIAN = Mixture((0.0,), (1.0,))
TWO = Mixture()


def log_prob(head: Head, z_D: torch.Tensor, x_NE: torch.Tensor) -> torch.Tensor:
    """nats_N (float64) of points under one context, by the ODE."""
    z_ND = z_D.expand(len(x_NE), -1)
    return head.log_prob(z_ND, x_NE.float(), "ode", stream(0, "score", len(x_NE))).nats_M.double()


def mass(head: Head, z_D: torch.Tensor, channels: int, half_width: float, points: int) -> float:
    """The integral of the density over a cube about 0."""
    side = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    density = log_prob(head, z_D, torch.cartesian_prod(*[side] * channels).reshape(-1, channels)).exp()
    return float(density.sum()) * (2 * half_width / (points - 1)) ** channels

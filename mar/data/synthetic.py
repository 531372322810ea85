"""A small Ising model on a binary grid: every probability known by enumeration, for tests and examples.

N examples · B batch · H, W rows and columns of the grid
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from mar.data.sampled import SampledData, SampledOptions
from mar.errors import UserError
from mar.noise import Noise


@dataclass(frozen=True)
class Ising:
    """p(x) ∝ exp(coupling Σ s_i s_j over neighbouring pairs + field Σ s_i), spins s = 2x − 1, open borders."""

    rows: int
    cols: int
    coupling: float
    field: float

    def states(self) -> torch.Tensor:
        """(2^(H W), 1, H, W) uint8: every grid; the first site is the lowest bit of its number."""
        site = torch.arange(self.rows * self.cols)
        number = torch.arange(2 ** len(site))
        return (number[:, None] >> site & 1).to(torch.uint8).reshape(-1, 1, self.rows, self.cols)

    def log_probability(self, x_B1HW: torch.Tensor) -> torch.Tensor:
        """nats_B (float64): the exact log-probability of each grid."""
        return self._log_weight(x_B1HW) - self._log_partition

    def sample(self, noise: Noise) -> torch.Tensor:
        """x (N, 1, H, W) uint8, one exact sample for each stream, by inverse transform over all states."""
        states = self.states()
        cumulative = self.log_probability(states).exp().cumsum(0)
        coarse_N, fine_N = noise.uniform(2).double().unbind(1)  # 48 bits: the rarest states have their share
        index_N = torch.searchsorted(cumulative, (coarse_N + fine_N * 2.0**-24) * cumulative[-1], right=True)
        return states[index_N.clamp(max=len(states) - 1)]

    def _log_weight(self, x_B1HW: torch.Tensor) -> torch.Tensor:
        s = 2.0 * x_B1HW[:, 0].double() - 1.0
        pairs_B = (s[:, 1:] * s[:, :-1]).sum((1, 2)) + (s[:, :, 1:] * s[:, :, :-1]).sum((1, 2))
        return self.coupling * pairs_B + self.field * s.sum((1, 2))

    @cached_property
    def _log_partition(self) -> torch.Tensor:
        return self._log_weight(self.states()).logsumexp(0)


@dataclass(frozen=True)
class SyntheticOptions(SampledOptions):
    coupling: float = 0.4
    field: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rows, self.cols) < 1 or self.rows * self.cols > 16:
            raise UserError(f"the grid is enumerated: at most 4x4 (16 sites), not {self.rows}x{self.cols}")


class Synthetic(SampledData):
    """Independent samples of ``distribution(options)``."""

    Options = SyntheticOptions
    name = "synthetic"

    @staticmethod
    def distribution(options: SyntheticOptions) -> Ising:
        return Ising(options.rows, options.cols, options.coupling, options.field)

"""The probability-flow ODE of a diffusion chain in continuous time: its velocity, and a token's log-density under it.

M tokens · N rows (one token each) · E token channels · T timesteps of the chain

Song et al. 2021b, "Score-based generative modeling through stochastic differential equations", eq. 13. Time is

    s = log(noise / signal), minus half the log signal-to-noise ratio,

so that signal² = 1 / (1 + exp(2 s)) = 1 - noise² is smooth, and only the timestep that the network is told is
interpolated: linearly in s between the timesteps of the chain, as the solvers of Lu et al. 2022 do. In these terms

    dx / ds = noise eps(x, t(s)) - noise² x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from mar.errors import UserError
from mar.heads.diffusion_process import Process
from mar.heads.ode import Derivative, OdeScoring, log_density

# (x_NE, timestep of shape (N,) or (1,), row_N) -> eps_NE
Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class DiffusionScoring(OdeScoring):
    """Of the density "ode": solver, steps, tolerance and t_min. Of the bound: timesteps."""

    solver: Literal["heun", "rk4", "rk45"] = "rk4"  # adaptive steps miss the network's waves in time
    t_min: float = 0.0  # the timestep, fractional if need be, at which the density is taken
    timesteps: int = 0  # of the bound drawn for each token, an unbiased estimate; 0: every one of its chain

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t_min < 0 or self.timesteps < 0 or self.timesteps == 1:
            raise UserError(f"t_min must not be negative, timesteps 0 (all) or at least 2: {self}")


class ContinuousTime:
    """A chain's timesteps and s = log(noise / signal), each a function of the other; float64."""

    def __init__(self, process: Process) -> None:
        self.s_T = process.table[1].log() - process.table[0].log()

    def s(self, timestep: float) -> float:
        below = min(int(timestep), len(self.s_T) - 2)
        return float(torch.lerp(self.s_T[below], self.s_T[below + 1], timestep - below))

    def timestep(self, s_N: torch.Tensor) -> torch.Tensor:
        s_T = self.s_T = self.s_T.to(s_N.device)
        above_N = torch.searchsorted(s_T, s_N).clamp(1, len(s_T) - 1)
        low_N, high_N = s_T[above_N - 1], s_T[above_N]
        return above_N - 1 + (s_N - low_N) / (high_N - low_N)


def probability_flow(time: ContinuousTime, predict: Predict) -> Derivative:
    """(x_NE, s, row_N) -> dx / ds."""

    def velocity(x_NE: torch.Tensor, s_N: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
        noise2_N1 = torch.sigmoid(2 * s_N)[:, None]
        eps_NE = predict(x_NE, time.timestep(s_N), row_N)
        return noise2_N1.sqrt() * eps_NE - noise2_N1 * x_NE

    return velocity


def diffusion_log_density(
    process: Process, start: int, predict: Predict, x_ME: torch.Tensor, scoring: DiffusionScoring
) -> tuple[torch.Tensor, int]:
    """nats_M (float64) and evaluations: the log-density of tokens at timestep ``scoring.t_min`` of the flow that is
    N(0, 1) at timestep ``start``.

    It is the density of x_t / signal, a token under noise of deviation noise / signal, not shrunk by the signal.

    Args:
        process: every timestep of the training chain.

    Raises:
        UserError: t_min is not before the start, or the tolerance cannot be met.
    """
    if scoring.t_min >= start:
        raise UserError(f"t_min must be less than the chain's start, timestep {start}, not {scoring.t_min:g}")
    time = ContinuousTime(process)
    first = time.s(scoring.t_min)
    log_signal = float(-0.5 * torch.tensor(2 * first, dtype=torch.float64).exp().log1p())
    x_t_ME = x_ME.double() * torch.tensor(log_signal, dtype=torch.float64).exp()
    nats_M, evaluations = log_density(probability_flow(time, predict), x_t_ME, first, time.s(start), scoring)
    return nats_M + x_ME.shape[1] * log_signal, evaluations

"""Likelihoods of the diffusion head: the variational bound of its chain, and the density of its probability-flow ODE.

M tokens · N rows (a token at a timestep) · D context width · W network width · E token channels · T timesteps of the
chain · J drawn timesteps

The bound is evaluated at every timestep, or estimated without bias from a few. The ODE is that of Song et al. 2021b,
"Score-based generative modeling through stochastic differential equations", eq. 13, in the time

    s = log(noise / signal), minus half the log signal-to-noise ratio,

so that signal² = 1 / (1 + exp(2 s)) = 1 - noise² is smooth. Only the timestep passed to the network is interpolated:
linearly in s between the timesteps of the chain, as the solvers of Lu et al. 2022 do. In these terms

    dx / ds = noise eps(x, t(s)) - noise² x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mar.core.devices import back, double
from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.heads.denoiser import Denoiser
from mar.heads.diffusion_process import LastTerm, Process
from mar.heads.ode import ROWS, OdeScoring, log_density


def log_density_bound(
    net: Denoiser, process: Process, z_MD: Tensor, x_ME: Tensor, noise: Noise, drawn: int, rows: int = ROWS
) -> Tensor:
    """Return nats_M: E[nats] <= log p of the ancestral sampler over ``process``, with a Gaussian last term.

    ``drawn`` terms of the chain are evaluated for each token; all where it is the chain's length.
    """
    parts = [torch.zeros(0, device=x_ME.device)]
    for row_M in torch.arange(len(x_ME), device=x_ME.device).split(rows):
        tokens = (net, process, z_MD[row_M], x_ME[row_M].float(), noise.rows(row_M))
        whole = drawn == len(process)
        terms_M = double(bound_terms(*tokens, rows=rows)).sum(1) if whole else estimated_terms(*tokens, drawn, rows)
        parts.append(back(-(double(terms_M) + process.prior_nats(x_ME[row_M]).sum(1)).float(), x_ME.device))
    return torch.cat(parts)


@torch.no_grad()
def bound_terms(
    net: Denoiser,
    process: Process,
    z_MD: Tensor,
    x_ME: Tensor,
    noise: Noise,
    last_term: LastTerm = "gaussian",
    rows: int = ROWS,
) -> Tensor:
    """Return nats_MT: each term of the bound over ``process``, summed over channels, without the prior's.

    The noise of a token at timestep t is ``noise.at("bound", draw=t)``: shared by chains that share the timestep.
    """
    condition_MW, count = net.cond_embed(z_MD), len(x_ME)
    parts = []
    for index_I in torch.arange(len(process), device=x_ME.device).split(max(1, rows // max(1, count))):
        draws = [process.timesteps[i] for i in index_I.tolist()]
        eps_NE = torch.cat(list(noise.at("bound").normals(x_ME.shape[1], draws)))
        x_0_NE, condition_NW = x_ME.repeat(len(index_I), 1), condition_MW.repeat(len(index_I), 1)
        term_N = _terms(net, process, condition_NW, x_0_NE, eps_NE, index_I.repeat_interleave(count), last_term)
        parts.append(term_N.reshape(len(index_I), count).T)
    return torch.cat(parts, dim=1)


@torch.no_grad()
def estimated_terms(
    net: Denoiser, process: Process, z_MD: Tensor, x_ME: Tensor, noise: Noise, drawn: int, rows: int = ROWS
) -> Tensor:
    """Return nats_M (float64): an unbiased estimate of the sum of ``bound_terms`` from ``drawn`` >= 2 of them.

    The term of index 0, -log p(x_0 | x_1), is unlike the others and always among them; the others are stratified.
    """
    noise, channels, parts = noise.at("bound estimate"), x_ME.shape[1], []
    for row_M in torch.arange(len(x_ME), device=x_ME.device).split(max(1, rows // drawn)):
        own = noise.rows(row_M)
        index_MJ, weight_MJ = process.stratified(own.at("timestep").uniform(drawn - 1))
        index_MJ, weight_MJ = F.pad(index_MJ, (1, 0), value=0), F.pad(weight_MJ, (1, 0), value=1.0)
        eps_NE = own.at("eps").normal(drawn * channels).reshape(-1, channels)
        condition_NW = net.cond_embed(z_MD[row_M]).repeat_interleave(drawn, 0)
        x_0_NE = x_ME[row_M].repeat_interleave(drawn, 0)
        term_N = _terms(net, process, condition_NW, x_0_NE, eps_NE, index_MJ.reshape(-1))
        parts.append((weight_MJ * term_N.reshape(index_MJ.shape)).sum(1))
    return torch.cat(parts)


def _terms(
    net: Denoiser,
    process: Process,
    condition_NW: Tensor,
    x_0_NE: Tensor,
    eps_NE: Tensor,
    index_N: Tensor,
    last_term: LastTerm = "gaussian",
) -> Tensor:
    """Return nats_N: one term of the bound for each row, summed over channels."""
    timestep_N = torch.tensor(process.timesteps, device=x_0_NE.device)[index_N]
    x_t_NE = process.diffuse(x_0_NE, eps_NE, index_N)
    predicted_NE, range_NE = net(x_t_NE, timestep_N, condition_NW).chunk(2, dim=-1)
    return process.bound_terms(x_0_NE, eps_NE, predicted_NE, range_NE, index_N, last_term).sum(-1)


# (x_NE, timestep of shape (N,) or (1,), row_N) -> eps_NE
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


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

    def timestep(self, s_N: Tensor) -> Tensor:
        s_T = self.s_T = back(self.s_T, s_N.device)
        above_N = torch.searchsorted(s_T, s_N).clamp(1, len(s_T) - 1)
        low_N, high_N = s_T[above_N - 1], s_T[above_N]
        return above_N - 1 + (s_N - low_N) / (high_N - low_N)


def diffusion_log_density(
    process: Process, start: int, predict: Predict, x_ME: Tensor, scoring: DiffusionScoring
) -> tuple[Tensor, int]:
    """Return nats_M (float64) and evaluations: the log-density of tokens at timestep ``scoring.t_min`` of the flow that
    is N(0, 1) at timestep ``start``; ``process`` has every timestep of the training chain.

    It is the density of x_t / signal, a token under noise of deviation noise / signal, not shrunk by the signal. Raise
    UserError if t_min is not before the start, or the tolerance cannot be met.
    """
    if scoring.t_min >= start:
        raise UserError(f"t_min must be less than the chain's start, timestep {start}, not {scoring.t_min:g}")
    time = ContinuousTime(process)

    def velocity(x_NE: Tensor, s_N: Tensor, row_N: Tensor) -> Tensor:
        noise2_N1 = torch.sigmoid(2 * s_N)[:, None]
        eps_NE = predict(x_NE, time.timestep(s_N), row_N)
        return noise2_N1.sqrt() * eps_NE - noise2_N1 * x_NE

    first = time.s(scoring.t_min)
    log_signal = float(-0.5 * torch.tensor(2 * first, dtype=torch.float64).exp().log1p())
    x_t_ME = back(double(x_ME) * torch.tensor(log_signal, dtype=torch.float64).exp(), x_ME.device)
    nats_M, evaluations = log_density(velocity, x_t_ME, first, time.s(start), scoring)
    return nats_M + x_ME.shape[1] * log_signal, evaluations

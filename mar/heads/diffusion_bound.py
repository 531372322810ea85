"""The variational bound of a diffusion chain on tokens' log-densities: every term, or an unbiased estimate from a few.

M tokens · N rows (a token at a timestep) · D context width · W network width · E token channels · T timesteps of the
chain · J drawn timesteps
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from mar.heads.denoiser import Denoiser
from mar.heads.diffusion_process import LastTerm, Process
from mar.noise import Noise

_ROWS = 8192  # rows of one evaluation: bounds the memory


def log_density_bound(
    net: Denoiser, process: Process, z_MD: torch.Tensor, x_ME: torch.Tensor, noise: Noise, drawn: int
) -> torch.Tensor:
    """nats_M: E[nats] <= log p of the ancestral sampler over ``process``, with a Gaussian density as its last term.

    Args:
        drawn: how many terms of the chain are evaluated for each token; all where it is the chain's length.
    """
    parts = [torch.zeros(0, device=x_ME.device)]
    for row_M in torch.arange(len(x_ME), device=x_ME.device).split(_ROWS):
        tokens = (net, process, z_MD[row_M], x_ME[row_M].float(), noise.rows(row_M))
        whole = drawn == len(process)
        terms_M = bound_terms(*tokens).double().sum(1) if whole else estimated_terms(*tokens, drawn)
        parts.append(-(terms_M + process.prior_nats(x_ME[row_M]).sum(1)).float())
    return torch.cat(parts)


@torch.no_grad()
def bound_terms(
    net: Denoiser,
    process: Process,
    z_MD: torch.Tensor,
    x_ME: torch.Tensor,
    noise: Noise,
    last_term: LastTerm = "gaussian",
) -> torch.Tensor:
    """nats_MT: each term of the bound over ``process``, summed over channels, without the prior's.

    The noise of a token at timestep t is ``noise.at("bound", draw=t)``: shared by chains that share the timestep.
    """
    condition_MW, count = net.cond_embed(z_MD), len(x_ME)
    parts = []
    for index_I in torch.arange(len(process), device=x_ME.device).split(max(1, _ROWS // max(1, count))):
        draws = [process.timesteps[i] for i in index_I.tolist()]
        eps_NE = torch.cat(list(noise.at("bound").normals(x_ME.shape[1], draws)))
        x_0_NE, condition_NW = x_ME.repeat(len(index_I), 1), condition_MW.repeat(len(index_I), 1)
        term_N = _terms(net, process, condition_NW, x_0_NE, eps_NE, index_I.repeat_interleave(count), last_term)
        parts.append(term_N.reshape(len(index_I), count).T)
    return torch.cat(parts, dim=1)


@torch.no_grad()
def estimated_terms(
    net: Denoiser, process: Process, z_MD: torch.Tensor, x_ME: torch.Tensor, noise: Noise, drawn: int
) -> torch.Tensor:
    """nats_M (float64): an unbiased estimate of the sum of ``bound_terms`` from ``drawn`` >= 2 of them.

    The term of index 0, -log p(x_0 | x_1), is unlike the others and always among them; the others are stratified.
    """
    noise, channels, parts = noise.at("bound estimate"), x_ME.shape[1], []
    for row_M in torch.arange(len(x_ME), device=x_ME.device).split(max(1, _ROWS // drawn)):
        rows = noise.rows(row_M)
        index_MJ, weight_MJ = process.stratified(rows.at("timestep").uniform(drawn - 1))
        index_MJ, weight_MJ = F.pad(index_MJ, (1, 0), value=0), F.pad(weight_MJ, (1, 0), value=1.0)
        eps_NE = rows.at("eps").normal(drawn * channels).reshape(-1, channels)
        condition_NW = net.cond_embed(z_MD[row_M]).repeat_interleave(drawn, 0)
        x_0_NE = x_ME[row_M].repeat_interleave(drawn, 0)
        term_N = _terms(net, process, condition_NW, x_0_NE, eps_NE, index_MJ.reshape(-1))
        parts.append((weight_MJ * term_N.reshape(index_MJ.shape)).sum(1))
    return torch.cat(parts)


def _terms(
    net: Denoiser,
    process: Process,
    condition_NW: torch.Tensor,
    x_0_NE: torch.Tensor,
    eps_NE: torch.Tensor,
    index_N: torch.Tensor,
    last_term: LastTerm = "gaussian",
) -> torch.Tensor:
    """nats_N: one term of the bound for each row, summed over channels."""
    timestep_N = torch.tensor(process.timesteps, device=x_0_NE.device)[index_N]
    x_t_NE = process.diffuse(x_0_NE, eps_NE, index_N)
    predicted_NE, range_NE = net(x_t_NE, timestep_N, condition_NW).chunk(2, dim=-1)
    return process.bound_terms(x_0_NE, eps_NE, predicted_NE, range_NE, index_N, last_term).sum(-1)

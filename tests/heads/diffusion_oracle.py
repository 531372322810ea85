"""What the tests of the diffusion head share: the exact predictor of a Gaussian, and a head that is not at its start.

M gathered tokens · N rows (a token at a timestep) · E token channels
"""

from __future__ import annotations

import torch
from torch import nn

from mar.core.tokens import Vectors
from mar.heads.diffusion import DiffusionHead, DiffusionOptions, DiffusionSampling
from mar.heads.diffusion_process import Process, betas

STD = 0.4


class Oracle(nn.Module):
    """Stands in for the network where tokens are N(context, STD^2): the exact eps, and a chosen range of variance."""

    def __init__(self, head: DiffusionHead, process: Process, exact_variance: bool = True) -> None:
        super().__init__()
        self.cond_embed = nn.Identity()
        self.process, self.exact_variance = process, exact_variance
        self.abar = torch.cumprod(1 - betas(head.options.schedule, head.options.timesteps), 0)

    def forward(self, x_NE: torch.Tensor, t_N: torch.Tensor, mean_NE: torch.Tensor) -> torch.Tensor:
        abar_N1 = self.abar[t_N.long()][:, None]
        eps_NE = (1 - abar_N1).sqrt() * (x_NE - abar_N1.sqrt() * mean_NE) / (abar_N1 * STD**2 + 1 - abar_N1)
        index_N = torch.bucketize(t_N, torch.tensor(self.process.timesteps))
        range_N1 = self.ranges()[index_N][:, None] if self.exact_variance else -torch.ones(len(t_N), 1)
        return torch.cat([eps_NE, range_N1.expand_as(eps_NE)], dim=-1).float()

    def ranges(self) -> torch.Tensor:
        """Where Var(x_{t-1} | x_t), from the joint Gaussian of two neighbours in the chain, lies in its range."""
        abar = self.abar[self.process.timesteps]
        before = torch.cat([torch.ones(1), abar[:-1]])
        now, previous = abar * STD**2 + 1 - abar, before * STD**2 + 1 - before
        log_variance = (previous - (abar / before) * previous**2 / now).log()
        smallest, largest = self.process.table[4], self.process.table[5]
        return 2 * (log_variance - smallest) / (largest - smallest) - 1


def gaussian_head(channels: int = 2, sampling: DiffusionSampling | None = None, exact_variance: bool = True, **options):
    head = DiffusionHead(channels, Vectors(channels), DiffusionOptions(**options))
    head.sampling = sampling or DiffusionSampling()
    process = head.sampling_chain()
    head.net = Oracle(head, process, exact_variance)  # pyright: ignore[reportAttributeAccessIssue]
    return head


def random_head(context: int = 6, channels: int = 3, **options) -> DiffusionHead:
    """A head whose output is not the zero that training starts from."""
    torch.manual_seed(0)
    head = DiffusionHead(context, Vectors(channels), DiffusionOptions(width=32, depth=2, **options))
    for parameter in head.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return head

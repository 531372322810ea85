"""Learned orders: a policy over the next position, and the order's posterior given the whole example.

B batch · L tokens · C condition width · D width · M gathered tokens

LO-ARM (Wang et al. 2025, "Learning-Order Autoregressive Models", arXiv 2503.05979). A latent order σ makes
p(x) = Σ_σ Π_i p_θ(σ_i | x_{σ_<i}) p(x_{σ_i} | x_{σ_<i}); its posterior is approximated by q_φ(σ | x).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from mar.core.noise import Noise
from mar.core.tokens import TokenKind
from mar.model.embedding import TokenEmbedding
from orderings import inverse

_BLOCKS, _HEADS = 2, 4  # of the posterior's Transformer


class OrderPolicy(nn.Module):
    """p_θ and q_φ, both uniform over orders until they are trained.

    Args:
        n_tokens: L.
        token: what the posterior reads.
        context_width: of the model's contexts, which the policy reads: it shares the model's trunk.
        width: of the posterior's Transformer.
        condition_width: C.
    """

    def __init__(self, n_tokens: int, token: TokenKind, context_width: int, width: int, condition_width: int) -> None:
        super().__init__()
        self.prior = nn.Sequential(nn.Linear(context_width, context_width), nn.SiLU(), _zero_logit(context_width))
        self.posterior = Posterior(n_tokens, token, width, condition_width)

    def next_logits(self, z_MD: torch.Tensor, unknown_BL: torch.Tensor) -> torch.Tensor:
        """logit_BL of p_θ(next position | what is known), −inf where a token is known; z_MD: the model's contexts."""
        logit_BL = torch.full(unknown_BL.shape, -torch.inf, device=z_MD.device)
        return logit_BL.masked_scatter(unknown_BL, self.prior(z_MD)[:, 0].float())

    def order_logits(self, token: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        """logit_BL of q_φ(σ | x), a Plackett–Luce distribution: q(σ_i = l | σ_<i, x) ∝ exp(logit_l), l not in σ_<i."""
        return self.posterior(token, condition_BC)


class Posterior(nn.Module):
    """A small Transformer over the whole example: one pass gives q_φ(σ | x) at every step of every order."""

    def __init__(self, n_tokens: int, token: TokenKind, width: int, condition_width: int) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(token, width)
        self.position = nn.Parameter(0.02 * torch.randn(n_tokens, width))
        self.enter = nn.LayerNorm(width)  # to the scale of what the blocks add, or all positions look alike
        self.condition = nn.Linear(condition_width, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, math.gcd(width, _HEADS), 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(_BLOCKS)
        )
        self.norm, self.logit = nn.LayerNorm(width), _zero_logit(width)

    def forward(self, token: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        x_BLD = self.enter(self.embedding(token) + self.position) + self.condition(condition_BC)[:, None]
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return self.logit(self.norm(x_BLD))[..., 0].float()


def draw_order(logit_BL: torch.Tensor, noise: Noise) -> torch.Tensor:
    """rank_BL of one Plackett–Luce order a row: sorting logits with Gumbel noise draws without replacement."""
    key_BL = logit_BL.detach() + noise.gumbel(logit_BL.shape[1])
    return inverse(torch.argsort(key_BL, dim=1, descending=True, stable=True))


def order_log_prob(logit_BL: torch.Tensor, rank_BL: torch.Tensor) -> torch.Tensor:
    """nats_BL (along ranks): log q(σ_i | σ_<i, x) of steps i = 0..L−1 under Plackett–Luce."""
    logit_BI = torch.empty_like(logit_BL).scatter(1, rank_BL, logit_BL)
    return logit_BI - logit_BI.flip(1).logcumsumexp(1).flip(1)


def _zero_logit(width: int) -> nn.Linear:
    """One logit a token, zero until trained. No bias: softmaxes do not see it."""
    layer = nn.Linear(width, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer

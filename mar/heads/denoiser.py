"""The network of the diffusion and flow heads: a residual MLP modulated by timestep and context (AdaLN).

N rows (a token at a timestep) · D context width · E token channels · W width of the MLP

Li et al. 2024, "Autoregressive image generation without vector quantization", section 4.2; AdaLN as in DiT (Peebles &
Xie 2023). Names of submodules are those of the released weights (``diffloss.net.*``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FREQUENCIES = 128  # half of the sinusoidal embedding's width
_LONGEST_PERIOD = 10_000.0


class TimeEmbedding(nn.Module):
    """Sinusoids of a timestep (cosines, then sines), then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t_N: Tensor) -> Tensor:
        exponent = torch.arange(_FREQUENCIES, dtype=torch.float32, device=t_N.device) / _FREQUENCIES
        angle = t_N.float()[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * exponent)
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))


class ResidualBlock(nn.Module):
    """x + gate * MLP(LayerNorm(x) * (1 + scale) + shift)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x_NW: Tensor, silu_NW: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation[1](silu_NW).chunk(3, dim=-1)
        return torch.addcmul(x_NW, gate, self.mlp(torch.addcmul(shift, self.in_ln(x_NW), 1 + scale)))


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x_NW: Tensor, silu_NW: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation[1](silu_NW).chunk(2, dim=-1)
        return self.linear(torch.addcmul(shift, self.norm_final(x_NW), 1 + scale))


class Denoiser(nn.Module):
    """A function of a noisy token, its timestep and its context, zero at the start."""

    def __init__(self, channels: int, outputs: int, context_width: int, width: int, depth: int, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.time_embed = TimeEmbedding(width)
        self.cond_embed = nn.Linear(context_width, width)
        self.input_proj = nn.Linear(channels, width)
        self.res_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, outputs)
        self._initialise()

    def forward(self, x_NE: Tensor, t_N: Tensor, condition_NW: Tensor) -> Tensor:
        """Return (N, outputs) float32.

        Args:
            t_N: timesteps, whole (integers, 0..timesteps-1) or fractional (floats); or one, shape (1,), for all rows.
            condition_NW: ``cond_embed`` of the context; projected by the caller, once for all timesteps of a token.
        """
        if not t_N.is_floating_point() and len(t_N) > self.timesteps:  # each timestep is embedded once
            time_NW = F.embedding(t_N, self.time_embed(torch.arange(self.timesteps, device=t_N.device)))
        else:
            time_NW = self.time_embed(t_N)
        silu_NW = F.silu(time_NW + condition_NW)  # every adaLN_modulation starts with it: once for all
        x_NW = self.input_proj(x_NE)
        for block in self.res_blocks:
            x_NW = block(x_NW, silu_NW)
        return self.final_layer(x_NW, silu_NW).float()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in self.time_embed.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        # Every block starts as the identity, and the prediction at zero.
        nn.init.zeros_(self.final_layer.linear.weight)
        for name, weight in self.named_parameters():
            if name.endswith("adaLN_modulation.1.weight"):
                nn.init.zeros_(weight)

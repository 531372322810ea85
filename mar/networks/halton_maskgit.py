"""Halton-MaskGIT (Besnier et al. 2025, arXiv 2503.17076): a bidirectional Transformer with a mask token.

B batch · L tokens · R registers · P = L + R slots · H heads · D width · C condition width · M gathered tokens

Every token has a slot; a learned mask token stands for the unknown ones. Registers, slots without a position, follow.
The condition modulates every block and the output (adaLN, Peebles & Xie 2023). Norms are root mean squares (Zhang &
Sennrich 2019), those of queries and keys over all heads together; the hidden layers are SwiGLU (Shazeer 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.core.options import at_least
from mar.networks.attention import SizedOptions, attention_of
from mar.networks.base import ABSENT, Network


@dataclass(frozen=True)
class Sizes:
    """Width, number of blocks and of attention heads, and registers."""

    width: int
    depth: int
    heads: int
    registers: int = 1


SIZES = {
    "tiny": Sizes(64, 4, 4),  # 8 × 8 digits on two CPU cores
    "small": Sizes(128, 4, 4),
    "base": Sizes(768, 12, 12),  # H-MaskGIT-B
    "large": Sizes(1024, 24, 16),  # H-MaskGIT-L, with mlp_ratio=2.75
    "huge": Sizes(1152, 28, 16),  # "xlarge" of the code
}


@dataclass(frozen=True)
class HaltonMaskGITOptions(SizedOptions):
    """A named size; options that are not None replace its numbers. H-MaskGIT-T: 384, 6, 6; S: 512, 12, 6, mlp_ratio 3.

    Heads have ``width // heads`` channels: H-MaskGIT-S attends with 510 of 512.
    """

    presets: ClassVar[Mapping[str, Sizes]] = SIZES
    bounds: ClassVar = {
        **SizedOptions.bounds, **dict.fromkeys(("width", "depth", "heads"), at_least(1)), "registers": at_least(0),
    }  # fmt: skip

    mlp_ratio: float = 8 / 3  # of three matrices, not two
    width: int | None = None  # None, here and below: as in the named size
    depth: int | None = None
    heads: int | None = None
    registers: int | None = None

    def __post_init__(self) -> None:
        super(SizedOptions, self).__post_init__()
        if self.sizes.heads > self.sizes.width:
            raise UserError(f"network.heads must be at most network.width: {self.sizes.heads} > {self.sizes.width}")


class Block(nn.Module):
    """A pre-norm block; shifts, scales and gates come from the modulation. Only it has biases."""

    def __init__(self, options: HaltonMaskGITOptions) -> None:
        super().__init__()
        width, self.heads = options.sizes.width, options.sizes.heads
        inner, hidden = self.heads * (width // self.heads), max(1, round(width * options.mlp_ratio))
        self.modulation = nn.Linear(width, 6 * width)
        self.norm1, self.norm2 = (nn.RMSNorm(width, eps=1e-5) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * inner, bias=False), nn.Linear(inner, width, bias=False)
        sides = {"w1": (width, hidden), "w2": (hidden, width), "w3": (width, hidden)}
        self.mlp = nn.ModuleDict({name: nn.Linear(*side, bias=False) for name, side in sides.items()})
        self.attn_drop, self.drop = options.attention_dropout, nn.Dropout(options.projection_dropout)

    def forward(self, x_BPD: Tensor, c_BC: Tensor, mask_B11P: Tensor | None) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(c_BC)[:, None].chunk(6, dim=-1)
        q, k, v = self.qkv(self.norm1(x_BPD) * (1 + scale) + shift).chunk(3, dim=-1)
        q, k = (F.rms_norm(x.float(), x.shape[-1:], eps=1e-5).to(v.dtype) for x in (q, k))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        mixed = attention_of(q, k, v, mask_B11P, self.attn_drop if self.training else 0.0).transpose(1, 2).flatten(2)
        x_BPD = x_BPD + gate * self.drop(self.proj(mixed))
        h_BPD, mlp = self.norm2(x_BPD) * (1 + mlp_scale) + mlp_shift, self.mlp
        return x_BPD + mlp_gate * mlp["w2"](self.drop(F.silu(mlp["w1"](h_BPD)) * mlp["w3"](h_BPD)))


class HaltonMaskGIT(Network):
    """Not one-pass: the known tokens of a row are those before its earliest target."""

    Options = HaltonMaskGITOptions
    order_invariant: ClassVar[bool] = True
    test_options: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2, "heads": 2}

    def __init__(self, shape: tuple[int, ...], options: HaltonMaskGITOptions) -> None:
        super().__init__(shape, options)
        sizes = options.sizes
        width = self.token_width = self.condition_width = self.context_width = sizes.width
        self.mask_token = nn.Parameter(torch.empty(width))
        self.position = nn.Parameter(torch.empty(self.n_tokens, width))
        self.registers = nn.Parameter(torch.empty(sizes.registers, width))
        self.blocks = nn.ModuleList(Block(options) for _ in range(sizes.depth))
        self.norm, self.norm_bias = nn.RMSNorm(width, eps=1e-5), nn.Parameter(torch.zeros(width))
        self.modulation = nn.Linear(width, 2 * width)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as published: modulations of blocks at zero, so that every block starts as the identity."""
        for parameter in (self.mask_token, self.position, self.registers):
            nn.init.normal_(parameter, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if name.endswith(".modulation"):
                    nn.init.zeros_(module.weight)

    def compile_parts(self) -> None:
        """Compile the blocks one by one: they share code, and all passes have L + R slots."""
        for block in self.blocks:
            block.compile(dynamic=False)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        if not target_BL.any():
            return token_BLD.new_zeros(0, self.context_width)
        now_B1 = torch.where(target_BL, step_BL, ABSENT).amin(1, keepdim=True)
        x_BLD = torch.where((step_BL < now_B1)[..., None], token_BLD, self.mask_token.to(token_BLD.dtype))
        x_BPD = torch.cat([x_BLD + self.position, self.registers.expand(len(x_BLD), -1, -1)], dim=1)
        present_BL, mask_B11P = step_BL < ABSENT, None
        if not bool(present_BL.all()):
            mask_B11P = F.pad(present_BL, (0, len(self.registers)), value=True)[:, None, None]
        c_BC = F.silu(condition_BC)
        for block in self.blocks:
            x_BPD = block(x_BPD, c_BC, mask_B11P)
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        shift_MD, scale_MD = self.modulation(c_BC)[row_M].chunk(2, dim=-1)
        return (self.norm(x_BPD[row_M, token_M]) + self.norm_bias) * (1 + scale_MD) + shift_MD

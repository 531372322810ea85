"""LlamaGen's Transformer blocks (Sun et al. 2024, arXiv 2406.06525) with rotary coordinates, of RandAR and ARPG.

B batch · L tokens · P slots · K keys · H heads · D width · F pairs of channels of a head

Here, not in either: both networks are this file and what differs. Blocks are pre-norm without biases, with RMSNorm and
SwiGLU. Keys and queries rotate with the coordinates of their token; those of the condition are zero, as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.networks.attention import attention_of
from mar.networks.base import Network
from mar.networks.causal_transformer import BUCKETS, KVCache, StackOptions

_BASE = 10_000.0  # of the frequencies of each axis


@dataclass(frozen=True)
class LlamaOptions(StackOptions):
    """``large`` and ``huge`` are L and XL of both models, whose hidden layers are rounded up to multiples of 256:
    ``mlp_ratio`` 2.75 and 2.8."""

    mlp_ratio: float = 8 / 3  # of three matrices, not two


def turns(shape: tuple[int, ...], channels: int) -> Tensor:
    """Return (1 + L, F, 2): cosine and sine of the angle of each pair of a head's ``channels`` at each token; zeros at
    place 0, that of the condition. Each axis has its share of the pairs.

    Raise UserError if a head has fewer pairs than the grid has axes.
    """
    axes, pairs = len(shape), channels // 2
    if channels % 2 or pairs < axes:
        wanted = f"an even number of channels a head, at least {2 * axes}"
        raise UserError(f"network.width / network.heads must be {wanted} on this grid, not {channels}")
    coordinate_LA = torch.cartesian_prod(*(torch.arange(n).float() for n in shape)).view(-1, axes)
    frequencies = [_BASE ** -(torch.arange(len(part)) / len(part)) for part in torch.arange(pairs).tensor_split(axes)]
    angle_LF = torch.cat([x_L[:, None] * f for x_L, f in zip(coordinate_LA.T, frequencies, strict=True)], dim=1)
    return F.pad(torch.stack([angle_LF.cos(), angle_LF.sin()], dim=-1), (0, 0, 0, 0, 1, 0))


def turned(x_PHd: Tensor, turn_PF2: Tensor) -> Tensor:
    """Rotate neighbouring channels (..., H, d) by the turns (..., F, 2)."""
    cos, sin = turn_PF2.unsqueeze(-3).unbind(-1)
    a, b = x_PHd.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x_PHd.dtype)


class LlamaBlock(nn.Module):
    """Self-attention, or with ``projections`` 1 attention to given keys and values, and a gated perceptron."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 8 / 3, dropout: float = 0.0, attention_dropout: float = 0.0,
        projections: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden, self.heads, self.attention_dropout = max(1, round(mlp_ratio * width)), heads, attention_dropout
        self.norm1, self.norm2 = (nn.RMSNorm(width, eps=1e-5) for _ in range(2))
        self.qkv = nn.Linear(width, projections * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x_BPD: Tensor, turn_BPF2: Tensor, mask_BPK: Tensor, kv: Tensor | None = None,
        cache: KVCache | None = None, write_BP: Any = None,
    ) -> Tensor:  # fmt: skip
        """Return x_BPD. ``kv`` (2, B, K, H, D / H): keys and values; None: those of x and of the cache."""
        q, *rest = self.qkv(self.norm1(x_BPD)).unflatten(-1, (-1, self.heads, x_BPD.shape[-1] // self.heads)).unbind(2)
        if kv is None:
            kv = keys_and_values(*rest, turn_BPF2, cache, write_BP, mask_BPK.shape[-1])
        q, k, v = (x.transpose(1, 2) for x in (turned(q, turn_BPF2), *kv))
        dropout = self.attention_dropout if self.training else 0.0
        mixed = attention_of(q, k, v, mask_BPK[:, None], dropout).transpose(1, 2).flatten(2)
        x_BPD = x_BPD + self.drop(self.proj(mixed))
        h_BPD = self.norm2(x_BPD)
        return x_BPD + self.drop(self.down(F.silu(self.gate(h_BPD)) * self.up(h_BPD)))


def keys_and_values(k: Tensor, v: Tensor, turn_BPF2: Tensor, cache: KVCache | None, *write: Any) -> Tensor:
    """Return (2, B, K, H, D / H): rotated keys, and values; with a cache all that it returns for ``write``."""
    kv = torch.stack([turned(k, turn_BPF2), v])
    return kv if cache is None else cache.append(kv, *write)


class LlamaNetwork(Network):
    Options = LlamaOptions
    test_options: ClassVar[dict[str, Any]] = {"width": 24, "depth": 2, "heads": 2}
    one_pass: ClassVar[bool] = True
    turn: Tensor

    def __init__(self, shape: tuple[int, ...], options: LlamaOptions) -> None:
        super().__init__(shape, options)
        self.multiple, self.sizes = 1, options.sizes
        self.token_width = self.condition_width = self.context_width = self.sizes.width
        self.register_buffer("turn", turns(shape, self.sizes.width // self.sizes.heads), persistent=False)
        self.norm = nn.RMSNorm(self.sizes.width, eps=1e-5)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)

    def row_floats(self, n_tokens: int) -> int:
        """Two slots a token, and the attention mask with its biases."""
        return 2 * super().row_floats(n_tokens) + 3 * (2 * n_tokens) ** 2

    def compile_parts(self) -> None:
        """Compile the blocks one by one: they share code, so each shape compiles once whatever the depth."""
        self.multiple = -(-(1 + self.n_tokens) // BUCKETS)
        for block in self.modules():
            if isinstance(block, LlamaBlock):
                block.compile(dynamic=False)


def rows_of(x_BLD: Tensor, place_BK: Tensor) -> Tensor:
    """Return the vectors (B, K, D) at places of each row."""
    return x_BLD[torch.arange(len(place_BK), device=place_BK.device)[:, None], place_BK]

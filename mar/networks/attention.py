"""Positions on a grid of any number of axes (learned, and rotary), and Transformer blocks over rows of unequal length.

B batch · L tokens · R rows · P places of a row · N packed slots · D width · H heads · A axes · F pairs of channels of a
head

Everything in a block except attention works on each slot alone, so all rows lie one after another in one x_ND. Only
attention needs the rows: rows of similar length are padded to a common one and attend as a group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from mar.core.errors import UserError

_BASE = 10_000.0  # Su et al. 2021; its A-th root on A axes (100 on images, as Heo et al. 2024)


class Positions(nn.Module):
    """Learned positions of the L tokens; with ``axes`` the sum of one vector for each coordinate."""

    def __init__(self, shape: tuple[int, ...], width: int, axes: bool) -> None:
        super().__init__()
        self.shape = shape if axes else (math.prod(shape),)
        self.tables = nn.ParameterList(nn.Parameter(0.02 * torch.randn(n, width)) for n in self.shape)

    def forward(self) -> torch.Tensor:
        """Return (L, D)."""
        first, *others = self.tables
        position = first
        for table in others:  # (..., D) of the axes so far -> (..., n, D)
            position = position.unsqueeze(-2) + table
        return position.flatten(0, -2)


Rotary = Literal["none", "sequence", "axes"]  # keys and queries rotate with: nothing, the raster index, coordinates


class RotaryEmbedding(nn.Module):
    """Rotary angles of the L tokens, after ``front`` places with angle 0 (the start, by default)."""

    def __init__(self, rotary: Rotary, shape: tuple[int, ...], channels: int, front: int = 1) -> None:
        super().__init__()
        angle_PF = None
        if rotary != "none":
            angle_PF = rotary_angles(shape if rotary == "axes" else (math.prod(shape),), channels)
            angle_PF = torch.cat([angle_PF.new_zeros(front - 1, channels // 2), angle_PF])
        self.register_buffer("angle_PF", angle_PF, persistent=False)

    def forward(self, place: torch.Tensor) -> torch.Tensor | None:
        """Return the angles (..., F) at places (...); None: no rotation."""
        return F.embedding(place, self.angle_PF) if isinstance(self.angle_PF, torch.Tensor) else None


def rotary_angles(shape: tuple[int, ...], channels: int) -> torch.Tensor:
    """Return (1 + L, F): the angle of each pair of a head's ``channels`` at each place, 0 at the start (place 0).

    Su et al. 2021, "RoFormer", eq. 15. Pairs take turns in following the axes; each axis has its own frequencies, from
    one radian a token downwards.

    Raises:
        UserError: a head has fewer pairs of channels than the grid has axes.
    """
    axes, pairs = len(shape), channels // 2
    if channels % 2 or pairs < axes:
        raise UserError(f"network.rotary wants an even number of channels a head, at least {2 * axes}, not {channels}")
    coordinate_LA = torch.cartesian_prod(*(torch.arange(n).float() for n in shape)).reshape(math.prod(shape), axes)
    pair_F = torch.arange(pairs)
    frequency_F = (_BASE ** (1 / axes)) ** -((pair_F // axes) / math.ceil(pairs / axes))
    angle_LF = coordinate_LA[:, pair_F % axes] * frequency_F
    return torch.cat([torch.zeros(1, pairs), angle_LF])


def rotate(x_Hd: torch.Tensor, angle_F: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys (..., H, d) by their angles (..., F): products depend on differences of coordinates."""
    cos, sin = angle_F.cos().unsqueeze(-2), angle_F.sin().unsqueeze(-2)
    a, b = x_Hd.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x_Hd.dtype)


def gather_padded(keep_BP: torch.Tensor, multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return place_BK and real_BK: the kept places of each row in their order, padded with place 0 to the longest row.

    K is a multiple of ``multiple``, at most P.
    """
    count_B1 = keep_BP.sum(1, keepdim=True)
    K = min(-(-int(count_B1.max()) // multiple) * multiple, keep_BP.shape[1])
    real_BK = torch.arange(K, device=keep_BP.device) < count_B1
    place_BK = (~keep_BP).to(torch.uint8).argsort(dim=1, stable=True)[:, :K]
    return torch.where(real_BK, place_BK, 0), real_BK


GROUPS = 8


@dataclass(frozen=True)
class Span:
    """``rows`` consecutive rows of ``length`` slots each. ``mask`` (rows, 1, 1, length): the real keys; None: all."""

    rows: int
    length: int
    mask: torch.Tensor | None


@dataclass(frozen=True)
class Packing:
    """The layout of the places of all rows among the N slots.

    Attributes:
        row_N, place_N: the place that each slot holds; padding slots hold place 0 of their row.
        slot_RP: the slot of each place, N (one past the last) for places that are not kept.
    """

    spans: tuple[Span, ...]
    row_N: torch.Tensor
    place_N: torch.Tensor
    slot_RP: torch.Tensor

    def __len__(self) -> int:
        return len(self.row_N)


def pack(keep_RP: torch.Tensor, groups: int = GROUPS, multiple: int = 1) -> Packing:
    """Pack the kept places of each row; every row keeps at least its place 0.

    Rows are sorted by length and cut into G groups of nearly equal numbers of rows, each padded to its own longest
    row. Let group g have rows of a_g to b_g places, so that b_{g-1} <= a_g. Its longest row needs no padding and each
    of the others, at most ceil(R/G) - 1 <= R/G of them, at most b_g - a_g. The sum over groups telescopes:

        padding <= R/G sum_g (b_g - a_g) <= R/G (b_G - a_1) <= R P / G

    that is, at most P/G slots a row, and none when all rows have one length (one group then, and no mask).

    Args:
        keep_RP: bool.
        groups: G.
        multiple: lengths are rounded up to a multiple of this, at most P: fewer shapes, for compiled code.
    """
    P = keep_RP.shape[1]
    length_R, order_R = keep_RP.sum(1).sort()
    lengths = length_R.tolist()
    places_RP = (~keep_RP).to(torch.uint8).argsort(dim=1, stable=True)[order_R]  # kept places first, in their order
    real_RP = torch.arange(P, device=keep_RP.device) < length_R[:, None]
    places_RP = torch.where(real_RP, places_RP, 0)
    spans, rows, places, reals = [], [], [], []
    for first, last, length in _groups(lengths, groups, multiple, P):
        part = slice(first, last)
        full = lengths[first] == length
        spans.append(Span(last - first, length, None if full else real_RP[part, None, None, :length]))
        rows.append(order_R[part, None].expand(-1, length).reshape(-1))
        places.append(places_RP[part, :length].reshape(-1))
        reals.append(real_RP[part, :length].reshape(-1))
    row_N, place_N, real_N = torch.cat(rows), torch.cat(places), torch.cat(reals)
    slot_RP = torch.full_like(places_RP, len(row_N))
    real = real_N.nonzero()[:, 0]
    slot_RP[row_N[real], place_N[real]] = real
    return Packing(tuple(spans), row_N, place_N, slot_RP)


def pack_each(keeps_RL: Iterable[torch.Tensor], front: int, buckets: int) -> list[Packing]:
    """Pack ``front`` places and the kept tokens of each row, for each of ``keeps_RL``.

    Args:
        buckets: 0, or the number of lengths that all rows are padded to, as one group.
    """
    packed = []
    for keep_RL in keeps_RL:
        keep_RP = F.pad(keep_RL, (front, 0), value=True)
        multiple = -(-keep_RP.shape[1] // buckets) if buckets else 1
        packed.append(pack(keep_RP, 1 if buckets else GROUPS, multiple))
    return packed


def _groups(lengths: list[int], groups: int, multiple: int, longest: int) -> list[tuple[int, int, int]]:
    """(first row, end, padded length) of each group of rows sorted by length; equal lengths share a group."""
    cuts: list[tuple[int, int, int]] = []
    R, G = len(lengths), min(groups, len(lengths))
    for g in range(G):
        first, last = R * g // G, R * (g + 1) // G
        length = min(-(-lengths[last - 1] // multiple) * multiple, longest)
        if cuts and cuts[-1][2] == length:
            first = cuts.pop()[0]
        cuts.append((first, last, length))
    return cuts


class Attention(nn.Module):
    """The projections of multi-head self-attention; parameters are named as in timm."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float, projection_dropout: float) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.attn_drop = nn.Dropout(dropout)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(projection_dropout)


class Mlp(nn.Module):
    """Two layers with GELU; parameters are named as in timm."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x_ND)))))


class PackedBlock(nn.Module):
    """A pre-norm Transformer block (Dosovitskiy et al. 2021) on packed rows.

    It has the parameters and the values of timm's block. Importing timm would take two seconds of processor time.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, qkv_bias, attn_drop, proj_drop)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), proj_drop)

    def forward(
        self,
        x_ND: torch.Tensor,
        spans: tuple[Span, ...],
        angle_NF: torch.Tensor | None = None,
        wanted_M: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return x_ND, or x_MD of the slots ``wanted_M`` alone: after attention only they are computed."""
        attention = self.attn
        dropout = attention.attn_drop.p if self.training else 0.0
        qkv_ND = attention.qkv(self.norm1(x_ND))
        if angle_NF is not None:
            qkv_ND = apply_rotary(qkv_ND, attention.num_heads, angle_NF)
        mixed_ND = attend(qkv_ND, attention.num_heads, spans, dropout)
        if wanted_M is not None:
            x_ND, mixed_ND = x_ND.index_select(0, wanted_M), mixed_ND.index_select(0, wanted_M)
        x_ND = x_ND + attention.proj_drop(attention.proj(mixed_ND))
        return x_ND + self.mlp(self.norm2(x_ND))


def packed_blocks(depth: int, width: int, heads: int, **options: Any) -> nn.ModuleList:
    """Return a stack of ``depth`` blocks."""
    return nn.ModuleList(PackedBlock(width, heads, **options) for _ in range(depth))


def run_blocks(
    blocks: Iterable[nn.Module],
    x_ND: torch.Tensor,
    packing: Packing,
    rotary: RotaryEmbedding,
    wanted_M: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return x_ND after a stack of ``PackedBlock``, or x_MD of the slots ``wanted_M`` alone."""
    angle_NF = rotary(packing.place_N)
    *others, last = blocks
    for block in others:
        x_ND = block(x_ND, packing.spans, angle_NF)
    return last(x_ND, packing.spans, angle_NF, wanted_M)


def apply_rotary(qkv_ND: torch.Tensor, heads: int, angle_NF: torch.Tensor) -> torch.Tensor:
    """Rotate the queries and keys of ``qkv_ND`` (..., 3 D); values stay."""
    qkv = qkv_ND.unflatten(-1, (3, heads, -1))
    qk = rotate(qkv[..., :2, :, :], angle_NF.unsqueeze(-2))
    return torch.cat([qk, qkv[..., 2:, :, :]], dim=-3).flatten(-3)


def attend(qkv_ND: torch.Tensor, heads: int, spans: tuple[Span, ...], dropout: float) -> torch.Tensor:
    """Return self-attention within each row; ``qkv_ND`` is (N, 3 D)."""
    mixed = []
    for span, qkv in zip(spans, qkv_ND.split([span.rows * span.length for span in spans]), strict=True):
        q, k, v = qkv.view(span.rows, span.length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (rows, H, length, D / H)
        out = attention_of(q, k, v, span.mask, dropout)
        mixed.append(out.transpose(1, 2).reshape(span.rows * span.length, -1))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def attention_of(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, dropout: float = 0.0
) -> torch.Tensor:
    """Return scaled dot-product attention.

    On a CPU the backward pass of the fused kernel is far slower in bfloat16 than in float32.
    """
    dtype = q.dtype
    if q.device.type == "cpu" and dtype == torch.bfloat16 and q.requires_grad:
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).to(dtype)

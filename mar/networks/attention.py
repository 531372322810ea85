"""Positions on a grid of any number of axes (learned, and rotary), and Transformer blocks over rows of unequal length.

B batch · L tokens · R rows · P places of a row · N packed slots · D width · H heads · A axes · F pairs of channels of a
head

Everything in a block except attention works on each slot alone, so all rows lie one after another in one x_ND. Only
attention needs the rows: rows of similar length are padded to a common one and attend as a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.core.options import POSITIVE, SHARE
from mar.networks.base import NetworkOptions

_BASE = 10_000.0  # Su et al. 2021; its A-th root on A axes (100 on images, as Heo et al. 2024)


class Positions(nn.Module):
    """Learned positions of the L tokens; with ``axes`` the sum of one vector for each coordinate."""

    def __init__(self, shape: tuple[int, ...], width: int, axes: bool) -> None:
        super().__init__()
        self.shape = shape if axes else (math.prod(shape),)
        self.tables = nn.ParameterList(nn.Parameter(0.02 * torch.randn(n, width)) for n in self.shape)

    def forward(self) -> Tensor:
        """Return (L, D)."""
        position, *others = self.tables
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

    def forward(self, place: Tensor) -> Tensor | None:
        """Return the angles (..., F) at places (...); None: no rotation."""
        return F.embedding(place, self.angle_PF) if isinstance(self.angle_PF, Tensor) else None


def rotary_angles(shape: tuple[int, ...], channels: int) -> Tensor:
    """Return (1 + L, F): the angle of each pair of a head's ``channels`` at each place, 0 at the start (place 0).

    Su et al. 2021, "RoFormer", eq. 15. Pairs take turns in following the axes; each axis has its own frequencies, from
    one radian a token downwards. Raise UserError if a head has fewer pairs of channels than the grid has axes.
    """
    axes, pairs = len(shape), channels // 2
    if channels % 2 or pairs < axes:
        raise UserError(f"network.rotary wants an even number of channels a head, at least {2 * axes}, not {channels}")
    coordinate_LA = torch.cartesian_prod(*(torch.arange(n).float() for n in shape)).reshape(math.prod(shape), axes)
    pair_F = torch.arange(pairs)
    frequency_F = (_BASE ** (1 / axes)) ** -((pair_F // axes) / math.ceil(pairs / axes))
    angle_LF = coordinate_LA[:, pair_F % axes] * frequency_F
    return torch.cat([torch.zeros(1, pairs), angle_LF])


def rotate(x_Hd: Tensor, angle_F: Tensor) -> Tensor:
    """Rotate queries or keys (..., H, d) by their angles (..., F): products depend on differences of coordinates."""
    cos, sin = angle_F.cos().unsqueeze(-2), angle_F.sin().unsqueeze(-2)
    a, b = x_Hd.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x_Hd.dtype)


def gather_padded(keep_BP: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Return place_BK and real_BK: the kept places of each row in their order, padded with place 0.

    K is the longest row's number, rounded up to a multiple of ``multiple``, at most P.
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
    mask: Tensor | None


@dataclass(frozen=True)
class Packing:
    """The layout of the places of all rows among the N slots."""

    spans: tuple[Span, ...]
    row_N: Tensor  # with place_N, the place that each slot holds; padding slots hold place 0 of their row
    place_N: Tensor
    slot_RP: Tensor  # the slot of each place, N (one past the last) for places that are not kept

    def __len__(self) -> int:
        return len(self.row_N)


def pack(keep_RP: Tensor, groups: int = GROUPS, multiple: int = 1) -> Packing:
    """Pack the kept places of each row; every row keeps at least its place 0.

    Rows are sorted by length and cut into G ``groups`` of nearly equal numbers of rows, each padded to its own longest
    row, or to a ``multiple`` (at most P: fewer shapes for compiled code). Let group g have rows of a_g to b_g places,
    so that b_{g-1} <= a_g. Its longest row needs no padding, and each of the others, at most R/G, at most b_g - a_g:

        padding <= R/G sum_g (b_g - a_g) <= R/G (b_G - a_1) <= R P / G

    that is, at most P/G slots a row, and none when all rows have one length (one group then, and no mask).
    """
    R, P = keep_RP.shape
    length_R, order_R = keep_RP.sum(1).sort()
    lengths = length_R.tolist()
    places_RP, real_RP = gather_padded(keep_RP[order_R], P)
    cuts: list[tuple[int, int, int]] = []  # first row, end, padded length of each group; equal lengths share one
    for g in range(G := min(groups, R)):
        first, last = R * g // G, R * (g + 1) // G
        length = min(-(-lengths[last - 1] // multiple) * multiple, P)
        if cuts and cuts[-1][2] == length:
            first = cuts.pop()[0]
        cuts.append((first, last, length))
    spans, rows, places, reals = [], [], [], []
    for first, last, length in cuts:
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


def pack_each(keeps_RL: Iterable[Tensor], front: int, buckets: int) -> list[Packing]:
    """Pack ``front`` places and the kept tokens of each row, for each of ``keeps_RL``.

    ``buckets``: 0, or the number of lengths that all rows are padded to, as one group.
    """
    keeps_RP = [F.pad(keep_RL, (front, 0), value=True) for keep_RL in keeps_RL]
    if not buckets:
        return [pack(keep_RP) for keep_RP in keeps_RP]
    return [pack(keep_RP, 1, -(-keep_RP.shape[1] // buckets)) for keep_RP in keeps_RP]


class Attention(nn.Module):
    """The projections of multi-head self-attention; parameters are named as in timm."""

    def __init__(self, width: int, heads: int, dropout: float, projection_dropout: float) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_drop = nn.Dropout(dropout)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(projection_dropout)


class Mlp(nn.Module):
    """Two layers with GELU; parameters are named as in timm."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x_ND)))))


class PackedBlock(nn.Module):
    """A pre-norm Transformer block (Dosovitskiy et al. 2021) on packed rows, with timm's parameters and values.

    Importing timm would take two seconds of processor time.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4.0, proj_drop: float = 0.0, attn_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, attn_drop, proj_drop)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), proj_drop)

    def forward(
        self, x_ND: Tensor, spans: tuple[Span, ...], angle_NF: Tensor | None = None, wanted_M: Tensor | None = None
    ) -> Tensor:
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


@dataclass(frozen=True)
class SizedOptions(NetworkOptions):
    """A named size. A subclass has an option for each number of its sizes; None keeps the number of the named size."""

    presets: ClassVar[Mapping[str, Any]]  # name -> sizes, a dataclass of integers

    size: Literal["tiny", "small", "base", "large", "huge"] = "tiny"
    mlp_ratio: float = 4.0
    attention_dropout: float = 0.0
    projection_dropout: float = 0.0
    bounds: ClassVar = {"mlp_ratio": POSITIVE, "attention_dropout": SHARE, "projection_dropout": SHARE}

    def __post_init__(self) -> None:
        super().__post_init__()
        values = asdict(self.sizes)
        for heads in (name for name in values if name.endswith("heads")):
            width = heads.replace("heads", "width")
            if values[width] % values[heads]:
                apart = f"{values[width]} is not of {values[heads]}"
                raise UserError(f"network.{width} must be a multiple of {heads}: {apart}")

    @property
    def sizes(self) -> Any:
        """The sizes of ``size``, replaced where an option is not None."""
        preset = self.presets[self.size]
        return replace(preset, **{k: value for k in asdict(preset) if (value := getattr(self, k)) is not None})

    def blocks(self, depth: int, width: int, heads: int, kind: Callable[..., nn.Module] = PackedBlock) -> nn.ModuleList:
        """Return a stack of ``depth`` blocks."""
        rest = (self.mlp_ratio, self.projection_dropout, self.attention_dropout)
        return nn.ModuleList(kind(width, heads, *rest) for _ in range(depth))


def run_blocks(
    blocks: Iterable[nn.Module], x_ND: Tensor, packing: Packing, rotary: RotaryEmbedding, wanted_M: Tensor | None = None
) -> Tensor:
    """Return x_ND after a stack of ``PackedBlock``, or x_MD of the slots ``wanted_M`` alone."""
    angle_NF = rotary(packing.place_N)
    *others, last = blocks
    for block in others:
        x_ND = block(x_ND, packing.spans, angle_NF)
    return last(x_ND, packing.spans, angle_NF, wanted_M)


def apply_rotary(qkv_ND: Tensor, heads: int, angle_NF: Tensor) -> Tensor:
    """Rotate the queries and keys of ``qkv_ND`` (..., 3 D); values stay."""
    qkv = qkv_ND.unflatten(-1, (3, heads, -1))
    qk = rotate(qkv[..., :2, :, :], angle_NF.unsqueeze(-2))
    return torch.cat([qk, qkv[..., 2:, :, :]], dim=-3).flatten(-3)


def attend(qkv_ND: Tensor, heads: int, spans: tuple[Span, ...], dropout: float) -> Tensor:
    """Return self-attention within each row; ``qkv_ND`` is (N, 3 D)."""
    mixed = []
    for span, qkv in zip(spans, qkv_ND.split([span.rows * span.length for span in spans]), strict=True):
        q, k, v = qkv.view(span.rows, span.length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (rows, H, length, D / H)
        out = attention_of(q, k, v, span.mask, dropout)
        mixed.append(out.transpose(1, 2).reshape(span.rows * span.length, -1))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def attention_of(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Return scaled dot-product attention."""
    dtype = q.dtype
    if q.device.type == "cpu" and dtype == torch.bfloat16 and q.requires_grad:  # its backward pass is far slower
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).to(dtype)

"""A Transformer block with two streams over shared keys and values.

B batch · P slots · K keys · T targets · H heads · D width · F pairs of channels of a head

The first slots hold contents (tokens that are known at some step), the others queries (positions that ask). Keys and
values are made from contents only; what each slot sees of them is its row of one mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from mar.networks.packing import PackedBlock, attention_of
from mar.networks.positions import rotate


def places(keep_BP: torch.Tensor, multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """(place_BK, real_BK): the kept places of each row in their order, padded with place 0 to the longest row."""
    count_B1 = keep_BP.sum(1, keepdim=True)
    K = min(-(-int(count_B1.max()) // multiple) * multiple, keep_BP.shape[1])
    real_BK = torch.arange(K, device=keep_BP.device) < count_B1
    place_BK = (~keep_BP).to(torch.uint8).argsort(dim=1, stable=True)[:, :K]
    return torch.where(real_BK, place_BK, 0), real_BK


@dataclass(frozen=True)
class Slots:
    """What every block knows of its slots.

    Attributes:
        contents: how many of the P slots hold contents; queries follow.
        sees_BPK: bool, the keys that each slot attends to, at least one.
        angle_BPF: rotary angles; None: none.
        write_BP: where in the memory the contents' keys and values go; None: there is no memory.
    """

    contents: int
    sees_BPK: torch.Tensor
    angle_BPF: torch.Tensor | None
    write_BP: torch.Tensor | None = None


class Memory:
    """One block's keys and values of everything observed, written in place."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kv: torch.Tensor | None = None  # (2, B, capacity, H, D / H), made when the type is known

    def take(self, kv_new: torch.Tensor, write_BP: torch.Tensor, keys: int) -> torch.Tensor:
        """Write (2, B, P, H, D / H) new keys and values; the first ``keys`` of all of them."""
        if self.kv is None:  # zeros: what nobody sees must be finite all the same
            self.kv = kv_new.new_zeros(2, kv_new.shape[1], self.capacity, *kv_new.shape[3:])
        if kv_new.shape[2]:
            row_B1 = torch.arange(len(write_BP), device=write_BP.device)[:, None]
            self.kv[:, row_B1, write_BP] = kv_new
        return self.kv[:, :, :keys]


class TwoStreamBlock(PackedBlock):
    """The pre-norm block of ``packing``, attending across two streams."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x_BPD: torch.Tensor, slots: Slots, memory: Memory | None = None, last: bool = False
    ) -> torch.Tensor:
        """x_BPD; of the ``last`` block the queries x_BTD alone: nobody reads its contents."""
        attention, n, sees_BPK, angle_BPF = self.attn, slots.contents, slots.sees_BPK, slots.angle_BPF
        D = x_BPD.shape[-1]
        heads = (attention.num_heads, D // attention.num_heads)
        h_BPD = self.norm1(x_BPD)
        (wq, wkv), (bq, bkv) = (p.split([D, 2 * D]) for p in (attention.qkv.weight, attention.qkv.bias))
        k, v = F.linear(h_BPD[:, :n], wkv, bkv).unflatten(-1, (2, *heads)).unbind(2)
        if angle_BPF is not None:
            k = rotate(k, angle_BPF[:, :n])
        if memory is not None and slots.write_BP is not None:
            k, v = memory.take(torch.stack([k, v]), slots.write_BP, sees_BPK.shape[-1])
        if last:
            x_BPD, h_BPD, sees_BPK = x_BPD[:, n:], h_BPD[:, n:], sees_BPK[:, n:]
            angle_BPF = None if angle_BPF is None else angle_BPF[:, n:]
        q = F.linear(h_BPD, wq, bq).unflatten(-1, heads)
        if angle_BPF is not None:
            q = rotate(q, angle_BPF)
        x_BPD = x_BPD + attention.proj_drop(attention.proj(self._attend(q, k, v, sees_BPK)))
        return x_BPD + self.mlp(self.norm2(x_BPD))

    def _attend(
        self, q_BPHd: torch.Tensor, k_BKHd: torch.Tensor, v_BKHd: torch.Tensor, sees_BPK: torch.Tensor
    ) -> torch.Tensor:
        """mixed_BPD."""
        if not q_BPHd.shape[1]:
            return q_BPHd.flatten(2)
        q, k, v = (x.transpose(1, 2) for x in (q_BPHd, k_BKHd, v_BKHd))
        dropout = self.attn.attn_drop.p if self.training else 0.0
        out = attention_of(q, k, v, sees_BPK[:, None], dropout)
        return out.transpose(1, 2).flatten(2)

"""The causal Transformer in any order: GPT and image GPT when the order is raster, one token at a time.

B batch · L tokens · S starts · K content slots or keys · T queries · P = K + T slots · H heads · D width ·
C condition width · M gathered tokens · F pairs of channels of a head

Two streams over shared keys and values (Yang et al. 2019, XLNet, Sec. 2.3). A content slot holds a known token and
attends to contents of strictly earlier steps and to itself; a query slot holds a target's position and the condition,
and attends to contents of strictly earlier steps. Keys and values come from contents only. The start, a content slot
that holds the condition, is earlier than everything, so no attention row is empty; a sequence of conditions has a start
for each of its S vectors, and S is 1 otherwise. GIVEN tokens are one step.

The query stream makes up to twice as many slots as a GPT has. In return one pass predicts any number of tokens after
the same known ones, and contents do not depend on the queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.options import at_least
from mar.networks.attention import (
    PackedBlock,
    Positions,
    Rotary,
    RotaryEmbedding,
    SizedOptions,
    attention_of,
    gather_padded,
    rotate,
)  # fmt: skip
from mar.networks.base import ABSENT, GIVEN, Network


@dataclass(frozen=True)
class Slots:
    """The layout of the slots, shared by all blocks."""

    contents: int  # how many of the P slots hold contents; queries follow
    attention_mask_BPK: Tensor  # bool, the keys that each slot attends to, at least one
    angle_BPF: Tensor | None  # rotary angles
    write_BP: Tensor | None = None  # places in the cache for the keys and values of the contents; None: no cache


class KVCache:
    """The keys and values of one block for everything observed, written in place."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kv: Tensor | None = None  # (2, B, capacity, H, D / H), made when the type is known

    def append(self, kv_new: Tensor, write_BP: Tensor, keys: int) -> Tensor:
        """Write (2, B, P, H, D / H) new keys and values; return the first ``keys`` of all of them."""
        if self.kv is None:  # zeros, not empty(): masked positions must still be finite
            self.kv = kv_new.new_zeros(2, kv_new.shape[1], self.capacity, *kv_new.shape[3:])
        if kv_new.shape[2]:
            row_B1 = torch.arange(len(write_BP), device=write_BP.device)[:, None]
            self.kv[:, row_B1, write_BP] = kv_new
        return self.kv[:, :, :keys]


@dataclass
class Memory:
    """Keys and values of the contents read so far along a plan, each at its place."""

    caches: list[KVCache]
    kept_BP: Tensor  # bool: the places that have them

    def forget(self, known_BL: Tensor) -> None:
        self.kept_BP = self.kept_BP & F.pad(known_BL, (self.kept_BP.shape[1] - known_BL.shape[1], 0), value=True)


class TwoStreamBlock(PackedBlock):
    """timm's pre-norm block, attending across two streams."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x_BPD: Tensor, slots: Slots, cache: KVCache | None = None, last: bool = False
    ) -> Tensor:
        """Return x_BPD; of the ``last`` block x_BTD of the queries alone."""
        attention, n, angle_BPF = self.attn, slots.contents, slots.angle_BPF
        attention_mask_BPK = slots.attention_mask_BPK
        D = x_BPD.shape[-1]
        heads = (attention.num_heads, D // attention.num_heads)
        h_BPD = self.norm1(x_BPD)
        (wq, wkv), (bq, bkv) = (p.split([D, 2 * D]) for p in (attention.qkv.weight, attention.qkv.bias))
        k, v = F.linear(h_BPD[:, :n], wkv, bkv).unflatten(-1, (2, *heads)).unbind(2)
        if angle_BPF is not None:
            k = rotate(k, angle_BPF[:, :n])
        if cache is not None and slots.write_BP is not None:
            k, v = cache.append(torch.stack([k, v]), slots.write_BP, attention_mask_BPK.shape[-1])
        if last:
            x_BPD, h_BPD, attention_mask_BPK = x_BPD[:, n:], h_BPD[:, n:], attention_mask_BPK[:, n:]
            angle_BPF = None if angle_BPF is None else angle_BPF[:, n:]
        q = F.linear(h_BPD, wq, bq).unflatten(-1, heads)
        if angle_BPF is not None:
            q = rotate(q, angle_BPF)
        if x_BPD.shape[1]:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            dropout = attention.attn_drop.p if self.training else 0.0
            q = attention_of(q, k, v, attention_mask_BPK[:, None], dropout).transpose(1, 2)
        x_BPD = x_BPD + attention.proj_drop(attention.proj(q.flatten(2)))
        return x_BPD + self.mlp(self.norm2(x_BPD))


BUCKETS = 8  # numbers of contents, and of queries, when compiled
_START = GIVEN - 1  # the step of the start


@dataclass(frozen=True)
class Sizes:
    """Width, number of blocks and of attention heads."""

    width: int
    depth: int
    heads: int


SIZES = {
    "tiny": Sizes(64, 4, 4),  # 8 × 8 digits on two CPU cores
    "small": Sizes(128, 4, 4),  # characters, 14 × 14 patches of MNIST on a CPU
    "base": Sizes(768, 12, 12),  # base, large and huge are GPT-2's first three sizes
    "large": Sizes(1024, 24, 16),
    "huge": Sizes(1280, 36, 20),
}


@dataclass(frozen=True)
class StackOptions(SizedOptions):
    """A named size of one stack of blocks; options that are not None replace its numbers."""

    presets: ClassVar[Mapping[str, Sizes]] = SIZES
    bounds: ClassVar = {**SizedOptions.bounds, **dict.fromkeys(("width", "depth", "heads"), at_least(1))}

    width: int | None = None  # None, here and below: as in the named size
    depth: int | None = None
    heads: int | None = None


@dataclass(frozen=True)
class CausalTransformerOptions(StackOptions):
    position: Literal["token", "axes"] = "token"  # one learned vector a token, or the sum of one for each coordinate
    rotary: Rotary = "none"  # rotate keys and queries, by raster index or coordinates


@dataclass
class CacheState:
    """The state of a generation: keys and values so far, and contents that the next pass processes.

    ``query`` and ``observe`` write into it, so one state serves one generation.
    """

    condition_BC: Tensor
    caches: list[KVCache]
    count_B: Tensor  # contents in the caches
    fresh_BKD: Tensor  # contents not yet in the caches
    place_BK: Tensor  # places of the fresh contents: 0..S - 1 the starts, S + l token l
    real_BK: Tensor  # bool: not padding


def _starts(condition_BC: Tensor) -> int:
    """Return S: the vectors of a sequence of conditions (B, S, C); 1 of (B, C)."""
    return condition_BC.shape[1] if condition_BC.ndim == 3 else 1


class CausalTransformer(Network):
    """One pass: contents are gathered once, and all targets of all steps are queries over them.

    Numbers of contents and queries are rounded up to a ``multiple``, so that compiled blocks see few shapes.
    """

    Options = CausalTransformerOptions
    test_options: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2, "heads": 2}
    one_pass: ClassVar[bool] = True
    condition_length: int = 2**16  # any

    def __init__(self, shape: tuple[int, ...], options: CausalTransformerOptions) -> None:
        super().__init__(shape, options)
        self.multiple, self.sizes = 1, options.sizes
        width, heads = self.sizes.width, self.sizes.heads
        self.token_width = self.condition_width = self.context_width = width
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.content_position = Positions(shape, width, options.position == "axes")
        self.query_position = Positions(shape, width, options.position == "axes")
        self.blocks = options.blocks(self.sizes.depth, width, heads, TwoStreamBlock)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.rotary = RotaryEmbedding(options.rotary, shape, width // heads)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as GPT-2: the layers that add to the residual stream start smaller the more of them there are."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                added = name.endswith(("attn.proj", "mlp.fc2"))
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * self.sizes.depth) if added else 0.02)
                nn.init.zeros_(module.bias)

    def row_floats(self, n_tokens: int) -> int:
        """Two streams, and the attention mask as booleans and as the biases that attention adds."""
        return 2 * super().row_floats(n_tokens) + 3 * n_tokens**2

    def compile_parts(self) -> None:
        """Compile the blocks one by one: they share code, so each shape compiles once whatever the depth."""
        self.multiple = -(-(1 + self.n_tokens) // BUCKETS)
        for block in self.blocks:
            block.compile(dynamic=False)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        last_B1, front = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True), (_starts(condition_BC), 0)
        content_BL = step_BL < last_B1  # positions after the last target are never queried
        place_BK, known_BK = gather_padded(F.pad(content_BL, front, value=True), self.multiple)
        place_BT, asked_BT = gather_padded(F.pad(target_BL, front, value=False), self.multiple)
        step_BP = F.pad(step_BL, front, value=_START)
        step_BK = torch.where(known_BK, step_BP.gather(1, place_BK), ABSENT)
        step_BT = step_BP.gather(1, place_BT).clamp(min=GIVEN)  # padding queries attend to the start
        attention_mask_BPK = torch.cat([step_BK, step_BT], dim=1)[:, :, None] > step_BK[:, None]
        attention_mask_BPK.diagonal(dim1=1, dim2=2).fill_(True)  # contents attend to themselves
        contents_BKD = self._contents(token_BLD, condition_BC, place_BK)
        z_BTD = self._run(contents_BKD, place_BK, condition_BC, place_BT, attention_mask_BPK)
        return z_BTD[asked_BT]

    def _contents(self, token_BLD: Tensor, condition_BC: Tensor, place_BK: Tensor) -> Tensor:
        """Return contents_BKD: the starts first, then token l at place S + l; unknown tokens are never read."""
        S, row_B1 = _starts(condition_BC), torch.arange(len(place_BK), device=place_BK.device)[:, None]
        token_BK = (place_BK - S).clamp(min=0)
        known_BKD = token_BLD[row_B1, token_BK] + F.embedding(token_BK, self.content_position())
        start_BSD = (condition_BC + self.start).view(len(condition_BC), S, -1)
        start_BKD = start_BSD if S == 1 else start_BSD[row_B1, place_BK.clamp(max=S - 1)]
        return torch.where((place_BK < S)[..., None], start_BKD, known_BKD)

    def _run(
        self,
        contents_BKD: Tensor,
        place_BK: Tensor,
        condition_BC: Tensor,
        place_BT: Tensor,
        attention_mask_BPK: Tensor,
        write_BK: Tensor | None = None,
        caches: list[KVCache] | None = None,
    ) -> Tensor:
        """Return z_BTD of the queries at ``place_BT``, through all blocks."""
        S = _starts(condition_BC)
        condition_B1C = condition_BC.view(len(condition_BC), S, -1).mean(1, keepdim=True)
        queries_BTD = F.embedding((place_BT - S).clamp(min=0), self.query_position()) + condition_B1C
        x_BPD = torch.cat([contents_BKD, queries_BTD], dim=1)
        angle_BPF = self.rotary((torch.cat([place_BK, place_BT], dim=1) - S + 1).clamp(min=0))
        slots = Slots(place_BK.shape[1], attention_mask_BPK, angle_BPF, write_BK)
        for i, block in enumerate(self.blocks):
            x_BPD = block(x_BPD, slots, caches[i] if caches else None, last=i == len(self.blocks) - 1)
        return self.norm(x_BPD)

    # Incremental generation: the tokens of a step go through the blocks once, together with the next queries.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> CacheState:
        S = _starts(condition_BC)
        place_BS = torch.arange(S, device=absent_BL.device).expand(len(absent_BL), -1)
        return CacheState(
            condition_BC,
            [KVCache(self.n_tokens + S + 1) for _ in self.blocks],  # starts, tokens, and a slot to write padding to
            torch.zeros_like(place_BS[:, 0]),
            (condition_BC + self.start).view(len(condition_BC), S, -1),
            place_BS,
            torch.ones_like(place_BS, dtype=torch.bool),
        )

    def observe(self, state: CacheState, token_BLD: Tensor, index_BL: Tensor) -> CacheState:
        place_BK, real_BK = gather_padded(F.pad(index_BL, (_starts(state.condition_BC), 0), value=False))
        if not place_BK.shape[1]:
            return state
        if state.fresh_BKD.shape[1]:  # no query since: tokens of one step must not see each other
            self.query(state, torch.zeros_like(index_BL))
        fresh_BKD = self._contents(token_BLD, state.condition_BC, place_BK)
        return CacheState(state.condition_BC, state.caches, state.count_B, fresh_BKD, place_BK, real_BK)

    def query(self, state: CacheState, index_BL: Tensor) -> Tensor:
        S = _starts(state.condition_BC)
        place_BT, asked_BT = gather_padded(F.pad(index_BL, (S, 0), value=False))
        before_B11 = state.count_B[:, None, None]
        slot_BK = state.count_B[:, None] + state.real_BK.cumsum(1) - 1
        after_B = state.count_B + state.real_BK.sum(1)
        key_K = torch.arange(int(after_B.max()), device=index_BL.device)
        own_BKK = (key_K == slot_BK[:, :, None]) | (key_K < before_B11)
        all_BTK = (key_K < after_B[:, None, None]).expand(-1, place_BT.shape[1], -1)
        z_BTD = self._run(
            state.fresh_BKD,
            state.place_BK,
            state.condition_BC,
            place_BT,
            torch.cat([own_BKK, all_BTK], dim=1),
            torch.where(state.real_BK, slot_BK, self.n_tokens + S),
            state.caches,
        )
        state.count_B = after_B
        state.fresh_BKD, state.place_BK, state.real_BK = (
            x[:, :0] for x in (state.fresh_BKD, state.place_BK, state.real_BK)
        )
        return z_BTD[asked_BT]

    # Reading ahead: contents enter the caches at their own places, so that some can be forgotten.

    def memory(self, batch: int, device: torch.device) -> Memory:
        return Memory([], torch.zeros(batch, self.n_tokens, dtype=torch.bool, device=device))

    def read(
        self, memory: Memory, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor
    ) -> Tensor:
        last_B1, S = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True), _starts(condition_BC)
        if not memory.caches:  # S is known now; a slot more to write padding to
            memory.caches = [KVCache(self.n_tokens + S + 1) for _ in self.blocks]
            memory.kept_BP = F.pad(memory.kept_BP, (S, 0), value=False)
        fresh_BP = F.pad(step_BL < last_B1, (S, 0), value=True) & ~memory.kept_BP
        memory.kept_BP = memory.kept_BP | fresh_BP
        place_BK, real_BK = gather_padded(fresh_BP)
        place_BT, asked_BT = gather_padded(F.pad(target_BL, (S, 0), value=False))
        step_BP = F.pad(step_BL, (S, 0), value=_START)
        slot_step_BS = step_BP.gather(1, torch.cat([place_BK, place_BT], dim=1))
        slot_step_BS[:, place_BK.shape[1] :].clamp_(min=GIVEN)  # padding queries attend to the start
        key_step_BP = torch.where(memory.kept_BP, step_BP, ABSENT)
        attention_mask_BSP = slot_step_BS[:, :, None] > key_step_BP[:, None]
        attention_mask_BSP[:, : place_BK.shape[1]].scatter_(2, place_BK[:, :, None], True)  # contents: themselves
        z_BTD = self._run(
            self._contents(token_BLD, condition_BC, place_BK),
            place_BK,
            condition_BC,
            place_BT,
            attention_mask_BSP,
            torch.where(real_BK, place_BK, self.n_tokens + S),
            memory.caches,
        )
        return z_BTD[asked_BT]

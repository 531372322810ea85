"""RAR (Yu et al. 2024, arXiv 2411.00776): a causal Transformer over the tokens in generation order.

B batch · L tokens · S slots of the sequence · T extra queries · P = S + T slots · K keys or new tokens · H heads ·
D width · C condition width · M gathered tokens

Slot 0 holds a class token that is learned, slot 1 the condition, slot 2 + r the token of rank r. Slot 1 + r predicts
the token of rank r: its input carries the target-aware positional embedding of that token, the next one (Sec. 3.3).
The sum of the condition and an embedding of the slot's number modulates every block (adaLN, Peebles & Xie 2023).

A set is predicted from one known set: each of its targets is asked for as if it were next. The first of a set is the
next token of the sequence, and slot 1 + r answers for it; each of the others is an extra query, a copy of that slot
with another next position, which nothing but itself reads. So one token at a time costs what it costs in the published
code. Tokens of one step, GIVEN ones too, are read in the order of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.networks.attention import PackedBlock, attention_of, gather_padded
from mar.networks.base import Network
from mar.networks.causal_transformer import BUCKETS, KVCache, Sizes, StackOptions

FRONT = 2  # slots before the tokens
SIZES = {
    "tiny": Sizes(64, 4, 4),  # 8 × 8 digits on two CPU cores
    "small": Sizes(128, 4, 4),
    "base": Sizes(768, 24, 16),  # RAR-B, RAR-L and RAR-XL
    "large": Sizes(1024, 24, 16),
    "huge": Sizes(1280, 32, 16),
}


@dataclass(frozen=True)
class RAROptions(StackOptions):
    """RAR-XXL: 1408, 40, 16, mlp_ratio 6144 / 1408."""

    presets: ClassVar[Mapping[str, Sizes]] = SIZES


class ModulatedBlock(PackedBlock):
    """A pre-norm block with normalised queries and keys; shifts, scales and gates come from the modulation."""

    def __init__(self, width: int, heads: int, *rest: float) -> None:
        super().__init__(width, heads, *rest)
        self.q_norm, self.k_norm = (nn.LayerNorm(width // heads, eps=1e-6) for _ in range(2))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x_BPD: Tensor, c_BPD: Tensor, mask_BPK: Tensor, cache: KVCache | None = None, write_BP: Any = None
    ) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(c_BPD).chunk(6, dim=-1)
        attention = self.attn
        qkv = attention.qkv(self.norm1(x_BPD) * (1 + scale) + shift).unflatten(-1, (3, attention.num_heads, -1))
        q, k, v = qkv.unbind(2)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if cache is not None:
            k, v = cache.append(torch.stack([k, v]), write_BP, mask_BPK.shape[-1])
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        dropout = attention.attn_drop.p if self.training else 0.0
        mixed = attention_of(q, k, v, mask_BPK[:, None], dropout).transpose(1, 2).flatten(2)
        x_BPD = x_BPD + gate * attention.proj_drop(attention.proj(mixed))
        return x_BPD + mlp_gate * self.mlp(self.norm2(x_BPD) * (1 + mlp_scale) + mlp_shift)


@dataclass
class SequenceState:
    """The state of a generation: keys and values of all slots but the last one, which waits for its next position.

    ``query`` and ``observe`` write into it, so one state serves one generation.
    """

    condition_BC: Tensor
    caches: list[KVCache]
    count_B: Tensor  # slots in the caches, and the number of the last one
    last_BD: Tensor  # input of the last slot, without its next position
    asked_BL: Tensor | None = None  # targets of the last query, whose keys and values follow those of the slots


@dataclass(frozen=True)
class Asked:
    """Which tokens come before which target when each is asked for as the next one."""

    order_BL: Tensor  # tokens by step, those of one step in the order of the grid
    before_BL: Tensor  # how many tokens have a smaller step
    n: int  # of them are read at most, and ``read_BK`` in each row
    read_BK: Tensor
    extra_BL: Tensor  # targets that are not the first of their set
    place_BT: Tensor  # their places, padded

    @staticmethod
    def of(step_BL: Tensor, target_BL: Tensor, multiple: int) -> Asked:
        """Take it from a plan; numbers of read tokens and of extra targets are rounded up to a ``multiple``."""
        step_of_rank_BL, order_BL = step_BL.sort(dim=1, stable=True)
        before_BL = torch.searchsorted(step_of_rank_BL, step_BL.contiguous())
        known_B1 = torch.where(target_BL, before_BL, 0).amax(1, keepdim=True)
        last = step_BL.shape[1] - 1
        n = min(-(-int(known_B1.max()) // multiple) * multiple, last)  # later ones are unread
        read_BK = torch.arange(n, device=step_BL.device) < known_B1
        index_L = torch.arange(last + 1, device=step_BL.device)
        extra_BL = target_BL & (order_BL.gather(1, before_BL.clamp(max=last)) != index_L)
        return Asked(order_BL, before_BL, n, read_BK, extra_BL, gather_padded(extra_BL, multiple)[0])


class RAR(Network):
    Options = RAROptions
    test_options: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2, "heads": 2}
    one_pass: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: RAROptions) -> None:
        super().__init__(shape, options)
        self.multiple, sizes = 1, options.sizes
        width = self.token_width = self.condition_width = self.context_width = sizes.width
        self.start = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(torch.empty(FRONT + self.n_tokens, width))
        self.next_position = nn.Parameter(torch.empty(self.n_tokens, width))
        self.slot = nn.Parameter(torch.empty(1 + self.n_tokens, width))
        self.blocks = options.blocks(sizes.depth, width, sizes.heads, ModulatedBlock)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise as published: modulations at zero, so that every block starts as the identity."""
        for parameter in (self.position, self.next_position, self.slot):
            nn.init.trunc_normal_(parameter, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
                if name.endswith("modulation"):
                    nn.init.zeros_(module.weight)

    def row_floats(self, n_tokens: int) -> int:
        """Slots and extra queries with their modulation, and the attention mask with its biases."""
        return 2 * (super().row_floats(n_tokens) + 6 * self.context_width * n_tokens) + 3 * (2 * n_tokens) ** 2

    def compile_parts(self) -> None:
        """Compile the blocks one by one: they share code, so each shape compiles once whatever the depth."""
        self.multiple = -(-(1 + self.n_tokens) // BUCKETS)
        for block in self.blocks:
            block.compile(dynamic=False)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        if not bool(target_BL.any()):
            return token_BLD.new_zeros(0, self.context_width)
        asked = Asked.of(step_BL, target_BL, self.multiple)
        order_BL, before_BL, n, place_BT = asked.order_BL, asked.before_BL, asked.n, asked.place_BT
        input_BSD = torch.cat(
            [self._front(condition_BC), self._tokens(token_BLD, order_BL[:, :n], asked.read_BK)], dim=1
        )
        next_BSD = F.pad(F.embedding(order_BL[:, : n + 1], self.next_position), (0, 0, 1, 0))
        number_BS = torch.arange(n + FRONT, device=step_BL.device).expand(len(step_BL), -1)

        number_BT = 1 + before_BL.gather(1, place_BT).clamp(max=n)
        row_B1 = torch.arange(len(step_BL), device=step_BL.device)[:, None]
        query_BTD = input_BSD[row_B1, number_BT] + F.embedding(place_BT, self.next_position)

        number_BP = torch.cat([number_BS, number_BT], dim=1)
        one_plan = number_BP if place_BT.shape[1] else number_BP[:1]  # without extra queries all rows share a mask
        mask_BPK = F.pad(number_BS[0] < one_plan[..., None], (0, place_BT.shape[1]))
        mask_BPK = mask_BPK | torch.eye(mask_BPK.shape[1], dtype=torch.bool, device=mask_BPK.device)
        x_BPD, c_BPD = self._run(torch.cat([input_BSD + next_BSD, query_BTD], 1), number_BP, condition_BC, mask_BPK)
        slot_M = torch.where(asked.extra_BL, n + FRONT - 1 + asked.extra_BL.cumsum(1), 1 + before_BL)[target_BL]
        row_M = target_BL.nonzero()[:, 0]
        return self._contexts(x_BPD[row_M, slot_M], c_BPD[row_M, slot_M])

    def _front(self, condition_BC: Tensor) -> Tensor:
        """Return the inputs of the first two slots (B, 2, D)."""
        return torch.stack([self.start.expand_as(condition_BC), condition_BC], dim=1) + self.position[:FRONT]

    def _tokens(self, token_BLD: Tensor, place_BK: Tensor, real_BK: Tensor) -> Tensor:
        """Return the inputs of the slots of tokens, without their next positions; unknown tokens are never read."""
        row_B1 = torch.arange(len(place_BK), device=place_BK.device)[:, None]
        x_BKD = torch.where(real_BK[..., None], token_BLD[row_B1, place_BK], 0.0)
        return x_BKD + F.embedding(FRONT + place_BK, self.position)

    def _run(
        self, x_BPD: Tensor, number_BP: Tensor, condition_BC: Tensor, mask_BPK: Tensor,
        caches: list[KVCache] | None = None, write_BP: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return x_BPD after all blocks, and the modulating c_BPD of slots with these numbers."""
        c_BPD = F.silu(condition_BC[:, None] + F.embedding(number_BP.clamp(max=self.n_tokens), self.slot))
        for i, block in enumerate(self.blocks):
            x_BPD = block(x_BPD, c_BPD, mask_BPK, caches[i] if caches else None, write_BP)
        return x_BPD, c_BPD

    def _contexts(self, x_MD: Tensor, c_MD: Tensor) -> Tensor:
        scale, shift = self.modulation(c_MD).chunk(2, dim=-1)
        return self.norm(x_MD) * (1 + scale) + shift

    # Incremental generation: the last slot runs once for each position that is asked for as the next.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> SequenceState:
        front_B2D = self._front(condition_BC)
        caches = [KVCache(self.n_tokens + FRONT) for _ in self.blocks]  # at last a place to write padding to
        state = SequenceState(condition_BC, caches, torch.zeros_like(absent_BL[:, 0], dtype=torch.int64), condition_BC)
        self._append(state, front_B2D[:, :1], torch.ones_like(absent_BL[:, :1]))
        state.last_BD = front_B2D[:, 1]
        return state

    def _append(self, state: SequenceState, x_BKD: Tensor, real_BK: Tensor) -> None:
        """Run slots that follow those in the caches, each with its next position."""
        number_BK = state.count_B[:, None] + torch.arange(x_BKD.shape[1], device=x_BKD.device)
        write_BK = torch.where(real_BK, number_BK, self.n_tokens + 1)
        mask_BKK = self._keys(state, x_BKD.shape[1]) <= number_BK[..., None]
        self._run(x_BKD, number_BK, state.condition_BC, mask_BKK, state.caches, write_BK)
        state.count_B = state.count_B + real_BK.sum(1)

    def _keys(self, state: SequenceState, more: int) -> Tensor:
        """Return the places of the slots in the caches and of ``more``, without that of padding."""
        return torch.arange(min(int(state.count_B.max()) + more, self.n_tokens + 1), device=state.count_B.device)

    def observe(self, state: SequenceState, token_BLD: Tensor, index_BL: Tensor) -> SequenceState:
        place_BK, real_BK = gather_padded(index_BL)
        K = place_BK.shape[1]
        if not K:
            return state
        x_BKD = torch.cat([state.last_BD[:, None], self._tokens(token_BLD, place_BK, real_BK)], dim=1)
        if K == 1 and state.asked_BL is not None and torch.equal(state.asked_BL, index_BL):
            state.count_B = state.count_B + real_BK.sum(1)  # the query ran this slot
        else:
            self._append(state, x_BKD[:, :-1] + F.embedding(place_BK, self.next_position), real_BK)
        state.last_BD = x_BKD[torch.arange(len(x_BKD), device=x_BKD.device), real_BK.sum(1)]
        state.asked_BL = None
        return state

    def query(self, state: SequenceState, index_BL: Tensor) -> Tensor:
        place_BT, asked_BT = gather_padded(index_BL)
        if not place_BT.shape[1]:
            return state.last_BD.new_zeros(0, self.context_width)
        count_B1 = state.count_B[:, None]
        write_BT = torch.where(asked_BT, count_B1 + asked_BT.cumsum(1) - 1, self.n_tokens + 1)
        key_K = self._keys(state, place_BT.shape[1])
        mask_BTK = (key_K < count_B1[..., None]) | (key_K == write_BT[..., None])
        x_BTD = state.last_BD[:, None] + F.embedding(place_BT, self.next_position)
        x_BTD, c_BTD = self._run(
            x_BTD, count_B1.expand_as(place_BT), state.condition_BC, mask_BTK, state.caches, write_BT
        )
        state.asked_BL = index_BL.clone()
        return self._contexts(x_BTD[asked_BT], c_BTD[asked_BT])

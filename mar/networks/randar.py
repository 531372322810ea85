"""RandAR (Pang et al. 2024, arXiv 2412.01827): a causal Transformer that is told the position of the next token.

B batch · L tokens · K known tokens or keys · S slots of the sequence · T extra queries · P = S + T slots · D width ·
M gathered tokens

Slot 0 holds the condition, slot 1 + 2r the position instruction of the token of rank r, slot 2 + 2r that token. An
instruction is one learned vector, rotated by the coordinates of its token, and predicts it.

A set is predicted as in ``rar``: each target as if it were next, all but the first by an extra query that nothing but
itself reads. In the published parallel generation each query of a set also reads the queries before it, which no
training has shown it: the sampling option ``chained`` does so, in the order of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.networks.attention import gather_padded
from mar.networks.base import GenerationOptions
from mar.networks.causal_transformer import KVCache
from mar.networks.llama import LlamaBlock, LlamaNetwork, LlamaOptions, rows_of, turned
from mar.networks.rar import Asked


@dataclass(frozen=True)
class RandARGeneration(GenerationOptions):
    chained: bool = False  # the queries of a set read those before them, as published

    @property
    def exact(self) -> bool:
        return not self.chained


@dataclass
class InstructedState:
    """The state of a generation: keys and values of slots, and slots that the next pass runs. ``query`` and ``observe``
    write into it, so one state serves one generation."""

    caches: list[KVCache]
    count_B: Tensor  # slots in the caches
    fresh_BKD: Tensor  # inputs of the slots that are not yet there
    place_BK: Tensor  # their places: 0 the condition, 1 + l token l and its instruction
    real_BK: Tensor  # bool: not padding
    asked_BL: Tensor | None = None  # targets of the last query, whose keys and values follow those of the slots


class RandAR(LlamaNetwork):
    sampling: RandARGeneration = RandARGeneration()

    def __init__(self, shape: tuple[int, ...], options: LlamaOptions) -> None:
        super().__init__(shape, options)
        width, depth, heads = vars(self.sizes).values()
        self.instruction = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = options.blocks(depth, width, heads, LlamaBlock)
        self._initialise()

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        if not bool(target_BL.any()):
            return token_BLD.new_zeros(0, self.context_width)
        asked = Asked.of(step_BL, target_BL, self.multiple)
        before_BL, n, place_BT = asked.before_BL, asked.n, asked.place_BT
        tokens_BKD = torch.where(asked.read_BK[..., None], rows_of(token_BLD, asked.order_BL[:, :n]), 0.0)
        told_BKD, place_BK = self._told(asked.order_BL[:, : n + 1], F.pad(tokens_BKD, (0, 0, 0, 1)))
        x_BPD = torch.cat([condition_BC[:, None], told_BKD[:, :-1], self._instructions(place_BT + 1)], dim=1)
        place_BP = torch.cat([F.pad(place_BK[:, :-1], (1, 0)), place_BT + 1], dim=1)
        number_BS = torch.arange(2 * (n + 1), device=step_BL.device).expand(len(step_BL), -1)
        number_BP = torch.cat([number_BS, 1 + 2 * before_BL.gather(1, place_BT).clamp(max=n)], dim=1)
        one_plan = number_BP if place_BT.shape[1] else number_BP[:1]  # without extra queries all rows share a mask
        mask_BPK = F.pad(number_BS[0] < one_plan[..., None], (0, place_BT.shape[1]))
        mask_BPK = mask_BPK | torch.eye(mask_BPK.shape[1], dtype=torch.bool, device=mask_BPK.device)
        slot_BL = torch.where(asked.extra_BL, 2 * n + 1 + asked.extra_BL.cumsum(1), 1 + 2 * before_BL)
        return self._run(x_BPD, place_BP, mask_BPK)[target_BL.nonzero()[:, 0], slot_BL[target_BL]]

    def _instructions(self, place_BK: Tensor) -> Tensor:
        return turned(self.instruction.view(self.sizes.heads, -1), self.turn[place_BK]).flatten(-2)

    def _told(self, index_BK: Tensor, tokens_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return each token after its instruction, (B, 2 K, D), and the places of both."""
        place_BK = 1 + index_BK
        pairs = torch.stack([self._instructions(place_BK).to(tokens_BKD.dtype), tokens_BKD], dim=2)
        return pairs.flatten(1, 2), place_BK.repeat_interleave(2, dim=1)

    def _run(
        self, x_BPD: Tensor, place_BP: Tensor, mask_BPK: Tensor, caches: list[KVCache] | None = None,
        write_BP: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        turn_BPF2 = self.turn[place_BP]
        for i, block in enumerate(self.blocks):
            x_BPD = block(x_BPD, turn_BPF2, mask_BPK, cache=caches[i] if caches else None, write_BP=write_BP)
        return self.norm(x_BPD)

    # Incremental generation: the tokens of a step go through the blocks once, together with the next instructions.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> InstructedState:
        place_B1 = torch.zeros_like(absent_BL[:, :1], dtype=torch.int64)
        caches = [KVCache(2 * self.n_tokens + 2) for _ in self.blocks]  # at last a place to write padding to
        return InstructedState(caches, place_B1[:, 0], condition_BC[:, None], place_B1, place_B1 == 0)

    def observe(self, state: InstructedState, token_BLD: Tensor, index_BL: Tensor) -> InstructedState:
        index_BK, real_BK = gather_padded(index_BL)
        if not index_BK.shape[1]:
            return state
        if state.fresh_BKD.shape[1]:  # no query since
            self.query(state, torch.zeros_like(index_BL))
        fresh_BKD, place_BK = self._told(index_BK, rows_of(token_BLD, index_BK))
        ran = int(index_BK.shape[1] == 1 and state.asked_BL is not None and torch.equal(state.asked_BL, index_BL))
        count_B = state.count_B + ran * real_BK.sum(1)  # the query ran the instructions
        real_BK = real_BK.repeat_interleave(2, dim=1)
        return InstructedState(state.caches, count_B, fresh_BKD[:, ran:], place_BK[:, ran:], real_BK[:, ran:])

    def query(self, state: InstructedState, index_BL: Tensor) -> Tensor:
        index_BT, asked_BT = gather_padded(index_BL)
        place_BP = torch.cat([state.place_BK, 1 + index_BT], dim=1)
        real_BP = torch.cat([state.real_BK, asked_BT], dim=1)
        slot_BP = state.count_B[:, None] + real_BP.cumsum(1) - 1
        K, last = state.place_BK.shape[1], 2 * self.n_tokens + 1
        state.count_B = state.count_B + state.real_BK.sum(1)
        key_K = torch.arange(min(int(state.count_B.max()) + index_BT.shape[1], last), device=index_BL.device)
        mask_BPK = key_K <= slot_BP[..., None]
        if not self.sampling.chained:
            own_BTK = (key_K < state.count_B[:, None, None]) | (key_K == slot_BP[:, K:, None])
            mask_BPK = torch.cat([mask_BPK[:, :K], own_BTK], dim=1)
        x_BPD = torch.cat([state.fresh_BKD, self._instructions(1 + index_BT).to(state.fresh_BKD.dtype)], dim=1)
        x_BPD = self._run(x_BPD, place_BP, mask_BPK, state.caches, torch.where(real_BP, slot_BP, last))
        state.fresh_BKD, state.place_BK, state.real_BK = (
            x[:, :0] for x in (state.fresh_BKD, state.place_BK, state.real_BK)
        )
        state.asked_BL = index_BL.clone()
        return x_BPD[:, K:][asked_BT]

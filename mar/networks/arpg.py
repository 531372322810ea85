"""ARPG (Li et al. 2025, arXiv 2503.10568): position queries over shared keys and values of the known tokens.

B batch · L tokens · K known tokens or keys · T queries · D width · M gathered tokens

The first half of the blocks reads the condition and the known tokens. Its output makes one set of keys and values. The
second half is asked: each query starts as one learned vector, and its target's coordinates rotate it in every block, so
queries do not see each other.

In the published training tokens read those before them; in its generation tokens of one set also read each other. Here
tokens read those of the same and of earlier steps: with one token at a time both are the same. GIVEN tokens are a set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.networks.attention import gather_padded
from mar.networks.base import ABSENT, GIVEN
from mar.networks.causal_transformer import KVCache
from mar.networks.llama import LlamaBlock, LlamaNetwork, LlamaOptions, keys_and_values, rows_of

_START = GIVEN - 1  # the step of the condition


@dataclass
class SharedState:
    """The state of a generation: keys and values of all known tokens. One state serves one generation."""

    condition_BC: Tensor
    caches: list[KVCache]  # of the blocks of the first half, then the shared ones
    count_B: Tensor  # entries of each row


class ARPG(LlamaNetwork):
    def __init__(self, shape: tuple[int, ...], options: LlamaOptions) -> None:
        super().__init__(shape, options)
        width, depth, heads = vars(self.sizes).values()
        if depth % 2:
            raise UserError(f"network.depth must be even, half of the blocks read and half are asked, not {depth}")
        self.blocks = options.blocks(depth // 2, width, heads, LlamaBlock)
        self.read_norm = nn.RMSNorm(width, eps=1e-5)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.asked_blocks = options.blocks(depth // 2, width, heads, partial(LlamaBlock, projections=1))
        self._initialise()

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        last_B1 = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True)
        place_BK, known_BK = gather_padded(F.pad(step_BL < last_B1, (1, 0), value=True), self.multiple)
        place_BT, asked_BT = gather_padded(F.pad(target_BL, (1, 0), value=False), self.multiple)
        step_BP = F.pad(step_BL, (1, 0), value=_START)
        step_BK = torch.where(known_BK, step_BP.gather(1, place_BK), ABSENT)
        step_BT = step_BP.gather(1, place_BT).clamp(min=GIVEN)  # padding queries attend to the condition
        kv = self._read(token_BLD, condition_BC, place_BK, step_BK[:, :, None] >= step_BK[:, None])
        return self._ask(place_BT, kv, step_BT[:, :, None] > step_BK[:, None])[asked_BT]

    def _read(
        self, token_BLD: Tensor, condition_BC: Tensor, place_BK: Tensor, mask_BKK: Tensor,
        caches: list[KVCache] | None = None, write_BK: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the shared keys and values (2, B, K, H, D / H) of the condition, place 0, and of tokens, 1 + l."""
        x_BKD = torch.where(
            (place_BK == 0)[..., None], condition_BC[:, None], rows_of(token_BLD, (place_BK - 1).clamp(min=0))
        )
        *block_caches, shared = caches or [None] * (len(self.blocks) + 1)
        turn_BKF2 = self.turn[place_BK]
        for block, cache in zip(self.blocks, block_caches, strict=True):
            x_BKD = block(x_BKD, turn_BKF2, mask_BKK, cache=cache, write_BP=write_BK)
        k, v = self.kv(self.read_norm(x_BKD)).unflatten(-1, (2, self.sizes.heads, -1)).unbind(2)
        return keys_and_values(k, v, turn_BKF2, shared, write_BK, mask_BKK.shape[-1])

    def _ask(self, place_BT: Tensor, kv: Tensor, mask_BTK: Tensor) -> Tensor:
        x_BTD, turn_BTF2 = self.mask_token.expand(*place_BT.shape, -1), self.turn[place_BT]
        for block in self.asked_blocks:
            x_BTD = block(x_BTD, turn_BTF2, mask_BTK, kv)
        return self.norm(x_BTD)

    # Incremental generation: the tokens of a step are read once, and queries read what they left.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> SharedState:
        caches = [KVCache(self.n_tokens + 2) for _ in range(len(self.blocks) + 1)]  # with a place to write padding to
        state = SharedState(condition_BC, caches, torch.zeros_like(absent_BL[:, 0], dtype=torch.int64))
        first_BP = F.pad(torch.zeros_like(absent_BL), (1, 0), value=True)
        return self._observe(state, condition_BC[:, None], first_BP)

    def observe(self, state: SharedState, token_BLD: Tensor, index_BL: Tensor) -> SharedState:
        return self._observe(state, token_BLD, F.pad(index_BL, (1, 0), value=False))

    def _observe(self, state: SharedState, token_BLD: Tensor, known_BP: Tensor) -> SharedState:
        place_BK, real_BK = gather_padded(known_BP)
        if place_BK.shape[1]:
            write_BK = torch.where(real_BK, state.count_B[:, None] + real_BK.cumsum(1) - 1, self.n_tokens + 1)
            state.count_B = state.count_B + real_BK.sum(1)
            mask_BKK = self._before(state, place_BK)
            self._read(token_BLD, state.condition_BC, place_BK, mask_BKK, state.caches, write_BK)
        return state

    def _before(self, state: SharedState, place_BK: Tensor) -> Tensor:
        """Return the mask that shows all entries of a row to its slots."""
        key_K = torch.arange(int(state.count_B.max()), device=place_BK.device)
        return (key_K < state.count_B[:, None, None]).expand(-1, place_BK.shape[1], -1)

    def query(self, state: SharedState, index_BL: Tensor) -> Tensor:
        place_BT, asked_BT = gather_padded(F.pad(index_BL, (1, 0), value=False))
        mask_BTK, kv = self._before(state, place_BT), state.caches[-1].kv
        assert kv is not None  # since ``begin``
        return self._ask(place_BT, kv[:, :, : mask_BTK.shape[-1]], mask_BTK)[asked_BT]

"""LPD (Zhang et al. 2025, arXiv 2507.01957): a Transformer over the known tokens with a learned query for each target.

B batch · L tokens · K content slots or keys · T queries · P = K + T slots · H heads · D width · C condition width ·
M gathered tokens

A content slot holds a known token, or the condition at the start, and attends to contents of earlier steps and of its
own. A query slot holds one learned vector and the position of a target; it attends to contents of earlier steps and to
the queries of its own step (Sec. 3.2, "mutual visibility"). So contexts depend on the set that they are asked for with
(``joint_sets``), not on its values. Contents and queries share positions, norms and blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.options import at_least
from mar.networks.attention import SizedOptions, gather_padded
from mar.networks.base import ABSENT, GIVEN, Network
from mar.networks.causal_transformer import BUCKETS, CacheState, KVCache, Sizes, Slots, TwoStreamBlock

SIZES = {
    "tiny": Sizes(64, 4, 4),  # 8 × 8 digits on two CPU cores
    "small": Sizes(128, 4, 4),
    "base": Sizes(1024, 24, 16),  # LPD-L, LPD-XL and LPD-XXL
    "large": Sizes(1280, 36, 20),
    "huge": Sizes(1536, 48, 24),
}
_PAD = 2 * ABSENT  # later than every slot that exists


@dataclass(frozen=True)
class LPDOptions(SizedOptions):
    """A named size; options that are not None replace its numbers."""

    presets: ClassVar[Mapping[str, Sizes]] = SIZES
    bounds: ClassVar = {**SizedOptions.bounds, **dict.fromkeys(("width", "depth", "heads"), at_least(1))}

    width: int | None = None  # None, here and below: as in the named size
    depth: int | None = None
    heads: int | None = None
    mutual: bool = True  # queries of one step see each other, as published


class LPD(Network):
    """One pass: ``multiple``, as in ``CausalTransformer``, rounds the numbers of contents and queries up."""

    Options = LPDOptions
    test_options: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2, "heads": 2}
    one_pass: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: LPDOptions) -> None:
        super().__init__(shape, options)
        self.multiple, sizes, self.joint_sets = 1, options.sizes, options.mutual
        width = self.token_width = self.condition_width = self.context_width = sizes.width
        self.position = nn.Parameter(0.02 * torch.randn(1 + self.n_tokens, width))
        self.target = nn.Parameter(0.02 * torch.randn(width))
        self.input_norm, self.norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.blocks = options.blocks(sizes.depth, width, sizes.heads, TwoStreamBlock)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def row_floats(self, n_tokens: int) -> int:
        """Contents and queries, and the attention mask as booleans and as the biases that attention adds."""
        return 2 * super().row_floats(n_tokens) + 3 * (2 * n_tokens) ** 2

    def compile_parts(self) -> None:
        """Compile the blocks one by one: they share code, so each shape compiles once whatever the depth."""
        self.multiple = -(-(1 + self.n_tokens) // BUCKETS)
        for block in self.blocks:
            block.compile(dynamic=False)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        set_BL = target_BL
        if self.joint_sets:  # all tokens of a target's step, targets or not
            set_BL = ((step_BL[:, :, None] == step_BL[:, None]) & target_BL[:, None]).any(2)
        last_B1 = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True)
        place_BK, real_BK = gather_padded(F.pad(step_BL < last_B1, (1, 0), value=True), self.multiple)
        place_BT, asked_BT = gather_padded(F.pad(set_BL, (1, 0), value=False), self.multiple)
        time_BP = 2 * F.pad(step_BL, (1, 0), value=GIVEN - 1)  # queries come between the steps of contents
        time_BK, time_BT = time_BP.gather(1, place_BK), time_BP.gather(1, place_BT) - 1
        time_BK, time_BT = torch.where(real_BK, time_BK, _PAD), torch.where(asked_BT, time_BT, _PAD)
        time_BP, K = torch.cat([time_BK, time_BT], dim=1), place_BK.shape[1]
        own_BPP = time_BP[:, :, None] == time_BP[:, None]
        if not self.joint_sets:
            own_BPP[:, K:, K:] = torch.eye(place_BT.shape[1], dtype=torch.bool, device=own_BPP.device)
        mask_BPP = own_BPP | F.pad(time_BK[:, None] < time_BP[:, :, None], (0, place_BT.shape[1]))
        contents_BKD = self._contents(token_BLD, condition_BC, place_BK)
        z_BTD = self._run(torch.cat([contents_BKD, self._queries(place_BT)], dim=1), mask_BPP)[:, K:]
        return z_BTD[asked_BT][target_BL[set_BL]]

    def _contents(self, token_BLD: Tensor, condition_BC: Tensor, place_BK: Tensor) -> Tensor:
        """Return contents_BKD: the condition at place 0, token l at place 1 + l; unknown tokens are never attended."""
        row_B1 = torch.arange(len(place_BK), device=place_BK.device)[:, None]
        known_BKD = token_BLD[row_B1, (place_BK - 1).clamp(min=0)]
        x_BKD = torch.where((place_BK == 0)[..., None], condition_BC[:, None], known_BKD)
        return self.input_norm(x_BKD + F.embedding(place_BK, self.position))

    def _queries(self, place_BT: Tensor) -> Tensor:
        return self.input_norm(self.target + F.embedding(place_BT, self.position))

    def _run(self, x_BPD: Tensor, mask_BPK: Tensor, caches: Any = None, write_BP: Tensor | None = None) -> Tensor:
        slots = Slots(x_BPD.shape[1], mask_BPK, None, write_BP)  # keys and values come from queries, too
        for i, block in enumerate(self.blocks):
            x_BPD = block(x_BPD, slots, caches[i] if caches else None)
        return self.norm(x_BPD)

    # Incremental generation: the tokens of a step go through the blocks once, together with the next queries.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> CacheState:
        place_B1 = torch.zeros_like(absent_BL[:, :1], dtype=torch.int64)
        start_B1D = self._contents(condition_BC[:, None], condition_BC, place_B1)
        caches = [KVCache(self.n_tokens + 2) for _ in self.blocks]  # at last a place to write padding to
        return CacheState(condition_BC, caches, place_B1[:, 0], start_B1D, place_B1, place_B1 == 0)

    def observe(self, state: CacheState, token_BLD: Tensor, index_BL: Tensor) -> CacheState:
        place_BK, real_BK = gather_padded(F.pad(index_BL, (1, 0), value=False))
        if not place_BK.shape[1]:
            return state
        if state.fresh_BKD.shape[1]:  # no query since
            self.query(state, torch.zeros_like(index_BL))
        fresh_BKD = self._contents(token_BLD, state.condition_BC, place_BK)
        return CacheState(state.condition_BC, state.caches, state.count_B, fresh_BKD, place_BK, real_BK)

    def query(self, state: CacheState, index_BL: Tensor) -> Tensor:
        place_BT, asked_BT = gather_padded(F.pad(index_BL, (1, 0), value=False))
        real_BP, K = torch.cat([state.real_BK, asked_BT], dim=1), state.real_BK.shape[1]
        slot_BP = state.count_B[:, None] + real_BP.cumsum(1) - 1
        known_B1 = (state.count_B + state.real_BK.sum(1))[:, None]
        seen_B1 = known_B1 + asked_BT.sum(1, keepdim=True)
        key_K = torch.arange(int(seen_B1.max()), device=index_BL.device)
        until_BP = torch.cat([known_B1.expand(-1, K), (seen_B1 if self.joint_sets else known_B1).expand_as(place_BT)], 1)
        mask_BPK = (key_K < until_BP[..., None]) | (key_K == slot_BP[..., None])
        x_BPD = torch.cat([state.fresh_BKD, self._queries(place_BT)], dim=1)
        z_BPD = self._run(x_BPD, mask_BPK, state.caches, torch.where(real_BP, slot_BP, self.n_tokens + 1))
        state.count_B = known_B1[:, 0]
        state.fresh_BKD, state.real_BK = state.fresh_BKD[:, :0], state.real_BK[:, :0]
        return z_BPD[:, K:][asked_BT]

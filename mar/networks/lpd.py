"""LPD (Zhang et al. 2025, arXiv 2507.01957): a Transformer over the known tokens with a learned query for each target.

B batch · L tokens · K content slots or keys · T queries · P = K + T slots · D width · C condition width ·
M gathered tokens

The causal Transformer with four differences. A query slot holds one learned vector and its position, without the
condition. It also attends to the queries of its own step (Sec. 3.2, "mutual visibility"): a context depends on which
tokens its set holds (``joint_sets``), not on their values. Contents of a step attend to each other. Contents and
queries share positions and a norm of the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.networks.attention import gather_padded
from mar.networks.base import ABSENT, GIVEN, Network
from mar.networks.causal_transformer import CacheState, CausalTransformer, CausalTransformerOptions, Sizes, Slots

SIZES = {
    "tiny": Sizes(64, 4, 4),  # 8 × 8 digits on two CPU cores
    "small": Sizes(128, 4, 4),
    "base": Sizes(1024, 24, 16),  # LPD-L, LPD-XL and LPD-XXL
    "large": Sizes(1280, 36, 20),
    "huge": Sizes(1536, 48, 24),
}
_PAD = 2 * ABSENT  # the time of padding, after all others


@dataclass(frozen=True)
class LPDOptions(CausalTransformerOptions):
    presets: ClassVar[Mapping[str, Sizes]] = SIZES

    mutual: bool = True  # queries of one step see each other, as published


class LPD(CausalTransformer):
    Options = LPDOptions
    condition_length: int = 0  # its start is one condition

    def __init__(self, shape: tuple[int, ...], options: LPDOptions) -> None:
        super().__init__(shape, options)
        del self.query_position
        self.joint_sets, width = options.mutual, self.context_width
        self.target = nn.Parameter(0.02 * torch.randn(width))
        self.input_norm = nn.LayerNorm(width, eps=1e-6)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        set_BL = target_BL
        if self.joint_sets:  # all tokens of a target's step, targets or not
            set_BL = ((step_BL[:, :, None] == step_BL[:, None]) & target_BL[:, None]).any(2)
        last_B1 = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True)
        place_BK, real_BK = gather_padded(F.pad(step_BL < last_B1, (1, 0), value=True), self.multiple)
        place_BT, asked_BT = gather_padded(F.pad(set_BL, (1, 0), value=False), self.multiple)
        time_BP = 2 * F.pad(step_BL, (1, 0), value=GIVEN - 1)  # queries come between the steps of contents
        time_BK = torch.where(real_BK, time_BP.gather(1, place_BK), _PAD)
        time_BT = torch.where(asked_BT, time_BP.gather(1, place_BT) - 1, _PAD)
        time_BP, T = torch.cat([time_BK, time_BT], dim=1), place_BT.shape[1]
        mask_BPP = time_BP[:, :, None] == time_BP[:, None]
        if not self.joint_sets:
            mask_BPP[:, -T:, -T:] = torch.eye(T, dtype=torch.bool, device=mask_BPP.device)
        mask_BPP |= F.pad(time_BK[:, None] < time_BP[:, :, None], (0, T))
        contents_BKD = self._contents(token_BLD, condition_BC, place_BK)
        z_BTD = self._run(contents_BKD, place_BK, condition_BC, place_BT, mask_BPP)
        return z_BTD[asked_BT][target_BL[set_BL]]

    def _contents(self, token_BLD: Tensor, condition_BC: Tensor, place_BK: Tensor) -> Tensor:
        return self.input_norm(super()._contents(token_BLD, condition_BC, place_BK))

    def _run(
        self, contents_BKD: Tensor, place_BK: Tensor, condition_BC: Tensor, place_BT: Tensor, mask_BPK: Tensor,
        write_BP: Tensor | None = None, caches: Any = None,
    ) -> Tensor:  # fmt: skip
        position_BTD = F.embedding((place_BT - 1).clamp(min=0), self.content_position())
        x_BPD = torch.cat([contents_BKD, self.input_norm(self.target + position_BTD)], dim=1)
        angle_BPF = self.rotary(torch.cat([place_BK, place_BT], dim=1))
        slots = Slots(x_BPD.shape[1], mask_BPK, angle_BPF, write_BP)  # keys and values of queries, too
        for i, block in enumerate(self.blocks):
            x_BPD = block(x_BPD, slots, caches[i] if caches else None)
        return self.norm(x_BPD[:, place_BK.shape[1] :])

    # Incremental generation: keys and values of queries follow those of contents, and are overwritten.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> CacheState:
        state = super().begin(condition_BC, absent_BL)
        state.fresh_BKD = self.input_norm(state.fresh_BKD)
        return state

    def query(self, state: CacheState, index_BL: Tensor) -> Tensor:
        place_BT, asked_BT = gather_padded(F.pad(index_BL, (1, 0), value=False))
        real_BP = torch.cat([state.real_BK, asked_BT], dim=1)
        slot_BP = state.count_B[:, None] + real_BP.cumsum(1) - 1
        known_B1 = (state.count_B + state.real_BK.sum(1))[:, None]
        seen_B1 = known_B1 + asked_BT.sum(1, keepdim=True)
        until_BT = (seen_B1 if self.joint_sets else known_B1).expand_as(place_BT)
        until_BP = torch.cat([known_B1.expand_as(state.place_BK), until_BT], dim=1)
        key_K = torch.arange(int(seen_B1.max()), device=index_BL.device)
        mask_BPK = (key_K < until_BP[..., None]) | (key_K == slot_BP[..., None])
        write_BP = torch.where(real_BP, slot_BP, self.n_tokens + 1)
        contents = (state.fresh_BKD, state.place_BK, state.condition_BC)
        z_BTD = self._run(*contents, place_BT, mask_BPK, write_BP, state.caches)
        state.count_B = known_B1[:, 0]
        state.fresh_BKD, state.place_BK, state.real_BK = (
            x[:, :0] for x in (state.fresh_BKD, state.place_BK, state.real_BK)
        )
        return z_BTD[asked_BT]

    memory, read = Network.memory, Network.read  # contents of a step attend to each other: none is kept alone

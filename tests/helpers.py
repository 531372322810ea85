"""Small parts that keep the contracts, for tests.

B batch · L tokens · D width · C condition width · M gathered tokens
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from mar.networks.base import ABSENT, GIVEN, Network, NetworkOptions

WIDTH = 8


class OnePass(Network):
    """One layer of attention: the query of a target's position over the tokens of strictly earlier steps."""

    Options = NetworkOptions
    one_pass = True

    def __init__(self, shape: tuple[int, ...], options: NetworkOptions) -> None:
        super().__init__()
        self.token_width = self.condition_width = self.context_width = WIDTH
        n_tokens = math.prod(shape)
        self.position = nn.Parameter(0.5 * torch.randn(n_tokens, WIDTH))
        self.start = nn.Parameter(torch.randn(WIDTH))  # what is seen when nothing is known
        self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH))

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        """(B, L query, L key) bool: the mask that a plan is."""
        return step_BL[:, :, None] > step_BL[:, None, :]

    def read(self, token_BLD: torch.Tensor) -> torch.Tensor:
        """What keys and values are made from."""
        return token_BLD + self.position

    def forward(
        self,
        token_BLD: torch.Tensor,
        step_BL: torch.Tensor,
        condition_BC: torch.Tensor,
        target_BL: torch.Tensor,
    ) -> torch.Tensor:
        return self.contexts(token_BLD, step_BL, condition_BC)[target_BL]

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        """z_BLD of every token."""
        query_BLD = self.position + condition_BC[:, None]
        memory_BLD = torch.cat([self.start.expand(len(step_BL), 1, -1), self.read(token_BLD)], dim=1)
        sees_BLL = F.pad(self.sees(step_BL), (1, 0), value=True)
        score_BLL = query_BLD @ self.key(memory_BLD).mT / WIDTH**0.5
        weight_BLL = score_BLL.masked_fill(~sees_BLL, -torch.inf).softmax(-1)
        return query_BLD + self.mlp(query_BLD + weight_BLL @ self.value(memory_BLD))


class StepByStep(OnePass):
    """The same conditionals, asked for one known set at a time."""

    one_pass = False
    order_invariant = True

    def forward(
        self,
        token_BLD: torch.Tensor,
        step_BL: torch.Tensor,
        condition_BC: torch.Tensor,
        target_BL: torch.Tensor,
    ) -> torch.Tensor:
        now_B1 = torch.where(target_BL, step_BL, ABSENT).amin(1, keepdim=True)
        step_BL = torch.where(step_BL < now_B1, GIVEN, step_BL.clamp(min=0, max=0))
        return super().forward(token_BLD, step_BL, condition_BC, target_BL)


@dataclass
class Memory:
    """Keys and values of what was observed."""

    condition_BC: torch.Tensor
    token_BLD: torch.Tensor
    known_BL: torch.Tensor


class Cached(OnePass):
    """Incremental generation from a memory of what was observed, instead of the full forward pass."""

    def begin(self, condition_BC: torch.Tensor, absent_BL: torch.Tensor) -> Memory:
        return Memory(condition_BC, torch.zeros(*absent_BL.shape, WIDTH), torch.zeros_like(absent_BL))

    def observe(self, state: Memory, token_BLD: torch.Tensor, index_BL: torch.Tensor) -> Memory:
        token_BLD = torch.where(index_BL[..., None], token_BLD, state.token_BLD)
        return Memory(state.condition_BC, token_BLD, state.known_BL | index_BL)

    def query(self, state: Memory, index_BL: torch.Tensor) -> torch.Tensor:
        step_BL = torch.where(state.known_BL, GIVEN, 0)
        return self(state.token_BLD, step_BL, state.condition_BC, index_BL)

"""Networks with one bug each, which verification must catch.

B batch · L tokens · D width · C condition width · M gathered tokens
"""

from __future__ import annotations

import torch

from mar.core.errors import Unsupported
from mar.networks.base import ABSENT, GIVEN
from tests.helpers import Cached, Memory, OnePass


class OffByOneMask(OnePass):
    """Sees its own step."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        return step_BL[:, :, None] >= step_BL[:, None, :]


class OneStepBehind(OnePass):
    """Never sees the step just before."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        return step_BL[:, :, None] > step_BL[:, None, :] + 1


class RasterWhateverThePlan(OnePass):
    """A triangular mask, as in a language model."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        order_L = torch.arange(step_BL.shape[1])
        return (order_L[:, None] > order_L[None, :]).expand(len(step_BL), -1, -1)


class FirstRowsPlan(OnePass):
    """The mask of the first row for the whole batch, without saying that it shares plans."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        return super().sees(step_BL[:1]).expand(len(step_BL), -1, -1)


class ShiftedPosition(OnePass):
    """Answers with the context of the token after."""

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        return super().contexts(token_BLD, step_BL, condition_BC).roll(-1, dims=1)


class PaddingIsKnown(OnePass):
    """Takes absent tokens for given ones."""

    def sees(self, step_BL: torch.Tensor) -> torch.Tensor:
        return super().sees(torch.where(step_BL == ABSENT, GIVEN, step_BL))


class NormalisedOverAll(OnePass):
    """Centres the tokens by a mean that includes the unknown ones."""

    def read(self, token_BLD: torch.Tensor) -> torch.Tensor:
        return super().read(token_BLD - token_BLD.mean(1, keepdim=True))


class NormalisedOverBatch(OnePass):
    """Centres the condition by the batch's mean."""

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        return super().contexts(token_BLD, step_BL, condition_BC - condition_BC.mean(0))


class ColumnMajor(OnePass):
    """Gathers the targets token by token instead of row by row."""

    def forward(
        self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor, target_BL: torch.Tensor
    ) -> torch.Tensor:
        return self.contexts(token_BLD, step_BL, condition_BC).transpose(0, 1)[target_BL.T]


class Deaf(OnePass):
    """Ignores the condition."""

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        return super().contexts(token_BLD, step_BL, torch.zeros_like(condition_BC))


class CacheBehind(Cached):
    """Its memory forgets which tokens it had observed before."""

    def observe(self, state: Memory, token_BLD: torch.Tensor, index_BL: torch.Tensor) -> Memory:
        state = super().observe(state, token_BLD, index_BL)
        return Memory(state.condition_BC, state.token_BLD, index_BL)


class RefusesEverything(OnePass):
    def check(self, step_BL: torch.Tensor) -> None:
        raise Unsupported("no plan is good enough")


class NotANumber(OnePass):
    """No start: a softmax over nothing."""

    def contexts(self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        weight_BLL = torch.zeros(self.sees(step_BL).shape).masked_fill(~self.sees(step_BL), -torch.inf).softmax(-1)
        return super().contexts(token_BLD, step_BL, condition_BC) + weight_BLL @ self.value(self.read(token_BLD))

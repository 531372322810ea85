"""The baseline without context: every token independent of all others given the class.

B batch · L tokens · D width of a context · C condition width · M gathered tokens

Under a categorical head this is naive Bayes, p(x | class) = prod_l p(x_l | class). The gain of any
other network over it is the information that tokens carry about each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mar.networks.base import Network, NetworkOptions


@dataclass(frozen=True)
class IndependentOptions(NetworkOptions):
    context_width: int = 16
    condition_width: int = 16
    positive = ("context_width", "condition_width")


class Independent(Network):
    """One learned context for each position, and for each position its own linear map of the condition."""

    Options = IndependentOptions
    test_options: ClassVar[dict[str, Any]] = {"context_width": 8, "condition_width": 8}
    one_pass: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, ...], options: IndependentOptions) -> None:
        super().__init__(shape, options)
        self.token_width = 1
        self.contexts = nn.Linear(options.condition_width, self.n_tokens * options.context_width)
        nn.init.normal_(self.contexts.bias, std=1.0)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        z_BLD = self.contexts(condition_BC).unflatten(1, (-1, self.context_width))
        # the token embedding takes part with gradient zero: data-parallel training waits for every parameter
        nothing = torch.where(torch.ones_like(token_BLD, dtype=torch.bool), 0, token_BLD).sum()
        return z_BLD[target_BL] + nothing

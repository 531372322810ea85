"""The baseline without context: every token independent of all others given the class.

B batch · L tokens · D width of a context · C condition width · M gathered tokens

Under a categorical head this is naive Bayes, p(x | class) = prod_l p(x_l | class). The gain of any
other network over it is the information that tokens carry about each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from mar.networks.base import Network, NetworkOptions, at_least_one


@dataclass(frozen=True)
class IndependentOptions(NetworkOptions):
    context_width: int = 16
    condition_width: int = 16

    def __post_init__(self) -> None:
        at_least_one(self, "context_width", "condition_width")


class Independent(Network):
    """One learned context for each position, and for each position its own linear map of the condition."""

    Options = IndependentOptions
    test_options: ClassVar[dict[str, Any]] = {"context_width": 8, "condition_width": 8}
    one_pass: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, ...], options: IndependentOptions) -> None:
        super().__init__()
        self.token_width, self.context_width = 1, options.context_width
        self.condition_width = options.condition_width
        self.contexts = nn.Linear(options.condition_width, math.prod(shape) * options.context_width)
        nn.init.normal_(self.contexts.bias, std=1.0)

    def forward(
        self, token_BLD: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor, target_BL: torch.Tensor
    ) -> torch.Tensor:
        z_BLD = self.contexts(condition_BC).unflatten(1, (-1, self.context_width))
        # the token embedding takes part with gradient zero: data-parallel training waits for every parameter
        nothing = torch.where(torch.ones_like(token_BLD, dtype=torch.bool), 0, token_BLD).sum()
        return z_BLD[target_BL] + nothing

"""One network for each position, without shared weights: the naive parameterisation of a factorisation.

B batch · L tokens · E token channels · D width of a context · C condition width · H hidden units · M gathered tokens

Position l has its own perceptron over the tokens known before its step, each with a flag that marks it as known, as in
a fully visible belief network with hidden units (Bengio & Bengio 2000). The size grows with the square of the number of
tokens, and positions share nothing that they learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import Unsupported
from mar.networks.base import Network, NetworkOptions

LARGEST = 256  # tokens


@dataclass(frozen=True)
class PerPositionOptions(NetworkOptions):
    hidden: int = 32  # units of each position's one hidden layer
    token_width: int = 4  # channels of an embedded token
    context_width: int = 8
    condition_width: int = 16
    positive = ("hidden", "token_width", "context_width", "condition_width")


class PerPosition(Network):
    """One pass: the L perceptrons run as one batched product. Grids of more than 256 tokens are unsupported."""

    Options = PerPositionOptions
    test_options: ClassVar[dict[str, Any]] = {"hidden": 8}
    one_pass: ClassVar[bool] = True
    cosine_token_init: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: PerPositionOptions) -> None:
        super().__init__(shape, options)
        n_tokens, hidden = self.n_tokens, options.hidden
        if n_tokens > LARGEST:
            raise Unsupported(
                f"network per-position keeps one network for each token, of at most {LARGEST}, not {n_tokens}: "
                "use network=made, or larger patches"
            )
        n_inputs = n_tokens * (options.token_width + 1) + options.condition_width
        self.hidden_weight_LIH = nn.Parameter(torch.randn(n_tokens, n_inputs, hidden) * math.sqrt(2 / n_inputs))
        self.hidden_bias = nn.Parameter(torch.zeros(n_tokens * hidden))  # flat, as biases that are not decayed are
        output_LHD = torch.randn(n_tokens, hidden, options.context_width) * math.sqrt(1 / hidden)
        self.output_weight_LHD = nn.Parameter(output_LHD)
        self.output_bias = nn.Parameter(torch.zeros(n_tokens * options.context_width))

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        knows_LBL = (step_BL[:, None] < step_BL[:, :, None]).transpose(0, 1)  # position, row, token
        flagged_BLD = F.pad(token_BLD, (0, 1), value=1.0)
        input_LBI = torch.where(knows_LBL[..., None], flagged_BLD, 0).flatten(2)
        condition_LBC = condition_BC.to(input_LBI.dtype).expand(len(input_LBI), -1, -1)
        input_LBI = torch.cat([input_LBI, condition_LBC], dim=-1)
        h_LBH = F.relu(torch.baddbmm(self.hidden_bias.view(len(input_LBI), 1, -1), input_LBI, self.hidden_weight_LIH))
        z_LBD = torch.baddbmm(self.output_bias.view(len(input_LBI), 1, -1), h_LBH, self.output_weight_LHD)
        return z_LBD.transpose(0, 1)[target_BL]

"""Baselines, each in any order: independent tokens, linear autoregression, and one network for each position.

B batch · L tokens · E token channels · D width of a context · C condition width · H hidden units · k lags ·
M gathered tokens
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import Unsupported
from mar.core.options import at_least
from mar.networks.base import Network, NetworkOptions

LARGEST = 256  # tokens of ``per-position``


@dataclass(frozen=True)
class IndependentOptions(NetworkOptions):
    context_width: int = 16
    condition_width: int = 16
    bounds: ClassVar = dict.fromkeys(("context_width", "condition_width"), at_least(1))


class Independent(Network):
    """One learned context for each position, and for each position its own linear map of the condition.

    Under a categorical head this is naive Bayes, p(x | class) = prod_l p(x_l | class). The gain of any other network
    over it is the information that tokens carry about each other.
    """

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


@dataclass(frozen=True)
class LinearAROptions(NetworkOptions):
    """Contexts are linear in the embedded tokens, and these in real values; the head may be nonlinear."""

    lags: int = 8  # k
    token_width: int = 4  # channels of an embedded token; at least those of a real-valued one
    context_width: int = 8
    condition_width: int = 16
    bounds: ClassVar = dict.fromkeys(("lags", "token_width", "context_width", "condition_width"), at_least(1))


class LinearAR(Network):
    """Linear autoregression of order k: x_t = c + A_1 x_{t-1} + ... + A_k x_{t-k} + noise, in one pass.

    The plan defines "the last k": known tokens are sorted by step, tokens of one step by grid index; the last k before
    the target's step are its regressors, lag 1 the last of them. In raster order, one token at a time, this is AR(k) of
    a series (Box & Jenkins 1970); tokens of one set share their regressors. Coefficients are shared by all positions. A
    lag from before the first known token has a coefficient vector of its own in place of a value.
    """

    Options = LinearAROptions
    test_options: ClassVar[dict[str, Any]] = {"lags": 3}
    one_pass: ClassVar[bool] = True
    cosine_token_init: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: LinearAROptions) -> None:
        super().__init__(shape, options)
        self.lags = nn.Linear(options.lags * (options.token_width + 1), options.context_width)
        self.condition = nn.Linear(options.condition_width, options.context_width, bias=False)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        sorted_BL, line_BL = step_BL.sort(dim=1, stable=True)
        earlier_BL = torch.searchsorted(sorted_BL, step_BL.contiguous())  # how many tokens have an earlier step
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        lag_K = torch.arange(1, self.options.lags + 1, device=step_BL.device)
        place_MK = earlier_BL[row_M, token_M, None] - lag_K
        value_MKD = token_BLD[row_M[:, None], line_BL[row_M[:, None], place_MK.clamp(min=0)]]
        known_MK1 = (place_MK >= 0)[..., None]
        value_MKD = torch.where(known_MK1, value_MKD, 0)
        x_MKD = torch.cat([value_MKD, (~known_MK1).to(value_MKD.dtype)], dim=-1)
        return self.lags(x_MKD.flatten(1)) + self.condition(condition_BC)[row_M]


@dataclass(frozen=True)
class PerPositionOptions(NetworkOptions):
    hidden: int = 32  # units of each position's one hidden layer
    token_width: int = 4  # channels of an embedded token
    context_width: int = 8
    condition_width: int = 16
    bounds: ClassVar = dict.fromkeys(("hidden", "token_width", "context_width", "condition_width"), at_least(1))


class PerPosition(Network):
    """A perceptron for each position over the tokens known before its step, each with a flag that marks it as known.

    The naive parameterisation of a factorisation, without shared weights: a fully visible belief network with hidden
    units (Bengio & Bengio 2000). The size grows with the square of the number of tokens, and positions share nothing
    that they learn. The L perceptrons run as one batched product; more than 256 tokens are unsupported.
    """

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

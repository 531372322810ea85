"""Linear autoregression of order k, in any order: x_t = c + A_1 x_{t-1} + ... + A_k x_{t-k} + noise.

B batch · L tokens · E token channels · D width of a context · C condition width · k lags · M gathered tokens

The plan defines "the last k": known tokens are sorted by step, tokens of one step by grid index; the last k before the
target's step are its regressors, lag 1 the last of them. In raster order, one token at a
time, this is AR(k) of a series (Box & Jenkins 1970); tokens of one set share their regressors. Coefficients are shared
by all positions. A lag from before the first known token has a coefficient vector of its own in place of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mar.networks.base import Network, NetworkOptions


@dataclass(frozen=True)
class LinearAROptions(NetworkOptions):
    """Contexts are linear in the embedded tokens, and these in real values; the head may be nonlinear."""

    lags: int = 8  # k
    token_width: int = 4  # channels of an embedded token; at least those of a real-valued one
    context_width: int = 8
    condition_width: int = 16
    positive = ("lags", "token_width", "context_width", "condition_width")


class LinearAR(Network):
    """One pass: the regressors of all targets are gathered at once."""

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

"""Real values as tokens of one channel, with a measured scale.

B batch · L tokens, one for each value
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from mar.core.devices import double
from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.spec import DataSpec
from mar.core.tokens import Vectors
from mar.tokenizers.base import Tokenizer, TokenizerOptions, moments

_ROUNDING = 1e-13  # of a mean square in float64: a smaller variance is rounding


@dataclass(frozen=True)
class ValuesOptions(TokenizerOptions):
    scale: Literal["global", "variable"] = "global"  # one mean and deviation, or one for each position


class Values(Tokenizer):
    """token = (x − shift) / scale. The likelihood is a density of x, in x's own units: it may exceed one."""

    Options = ValuesOptions
    real: ClassVar[bool] = True
    shift: torch.Tensor  # (L,)
    scale: torch.Tensor  # (L,)

    def __init__(self, spec: DataSpec, options: ValuesOptions) -> None:
        super().__init__()
        if spec.shape[:-1] != (1, 1) or spec.levels:
            raise UserError(
                f"tokenizer values needs real values of shape (1, 1, L), not {spec.shape} with {spec.levels} levels: "
                "use tokenizer.kind=sequence, or patches for images"
            )
        self.options = options
        self.shape = spec.shape[2:]
        self.token = Vectors(1)
        self.dimensions = spec.shape[2]
        self.register_buffer("shift", torch.zeros(self.dimensions))
        self.register_buffer("scale", torch.ones(self.dimensions))

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Measure mean and standard deviation; a constant value keeps its own scale."""
        mean_L, second_L = moments((x.cpu().flatten(1) for x in batches), self.options.scale == "global")
        variance_L = second_L - mean_L.square()
        self.shift.copy_(mean_L)
        self.scale.copy_(torch.where(variance_L > _ROUNDING * second_L, variance_L, 1.0).sqrt())

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """(B, 1, 1, L) float32 -> (B, L, 1) float32; real values need no dequantisation."""
        return ((x.flatten(1) - self.shift) / self.scale)[..., None]

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """(B, L, 1) -> (B, 1, 1, L) float32."""
        return (token[..., 0].float() * self.scale + self.shift)[:, None, None]

    @property
    def log_jacobian(self) -> float:
        """−Σ_L log scale."""
        return -float(double(self.scale).log().sum())

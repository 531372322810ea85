"""The guidance scale along a generation.

B batch · L tokens
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from mar.core.errors import UserError


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho & Salimans 2022). Scale 1 is none, and costs no second context.

    ``linear`` grows with the share of tokens known after the step, as the published MAR does:
    1 + (scale - 1) (L - max(1, masked after the step)) / L.
    """

    scale: float = 1.0
    schedule: Literal["constant", "linear"] = "linear"

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf or self.schedule not in ("constant", "linear"):
            raise UserError(f"guidance wants scale >= 0 and schedule constant or linear, not {self}")

    @property
    def active(self) -> bool:
        return self.scale != 1.0

    def at(self, known_after_B: torch.Tensor, n_tokens_B: torch.Tensor) -> torch.Tensor:
        """scale_B for a step after which ``known_after_B`` of ``n_tokens_B`` tokens are known."""
        if self.schedule == "constant":
            return torch.full(known_after_B.shape, self.scale, device=known_after_B.device)
        masked_B = (n_tokens_B - known_after_B).clamp(min=1)
        return 1.0 + (self.scale - 1.0) * (n_tokens_B - masked_B).float() / n_tokens_B


NONE = Guidance()

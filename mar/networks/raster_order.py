"""Plans that go one token at a time in raster order: all that some networks serve.

B batch · L tokens
"""

from __future__ import annotations

import torch

from mar.errors import Unsupported
from mar.networks.base import ABSENT, GIVEN


def require_raster_order(who: str, step_BL: torch.Tensor) -> None:
    """Refuse plans other than: GIVEN tokens first, the others one at a time in raster order, ABSENT ones last.

    On one axis raster order is left to right. Rows may differ in how many tokens are given or absent.

    Raises:
        Unsupported: ``who`` does not serve such plans.
    """
    given_B1 = (step_BL == GIVEN).sum(1, keepdim=True)
    present_B1 = (step_BL < ABSENT).sum(1, keepdim=True)
    token_L = torch.arange(step_BL.shape[1], device=step_BL.device)
    raster_BL = torch.where(token_L < present_B1, (token_L - given_B1).clamp(min=GIVEN), ABSENT)
    if not torch.equal(step_BL, raster_BL):
        raise Unsupported(
            f"{who} serves raster order, one token at a time, what is given before what is generated: "
            "use ordering=raster and partition=singles"
        )

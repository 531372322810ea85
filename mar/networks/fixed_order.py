"""Named sizes of the Transformers, and the refusal of plans other than raster order, one token at a time.

B batch · L tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch

from mar.core.errors import Unsupported, UserError
from mar.networks.base import ABSENT, GIVEN, NetworkOptions, at_least_one, in_unit_interval


@dataclass(frozen=True)
class SizedOptions(NetworkOptions):
    """A named size. A subclass has an option for each number of its sizes; None keeps the number of the named size.

    Attributes:
        presets: name -> sizes, a dataclass of integers.
    """

    presets: ClassVar[Mapping[str, Any]]

    size: Literal["tiny", "small", "base", "large", "huge"] = "tiny"
    mlp_ratio: float = 4.0
    attention_dropout: float = 0.0
    projection_dropout: float = 0.0

    def __post_init__(self) -> None:
        sizes = self.sizes
        at_least_one(sizes, *(field.name for field in fields(sizes)))
        for heads in (field.name for field in fields(sizes) if field.name.endswith("heads")):
            width = heads.replace("heads", "width")
            if getattr(sizes, width) % getattr(sizes, heads):
                raise UserError(
                    f"network.{width} must be a multiple of {heads}: {getattr(sizes, width)} is not of "
                    f"{getattr(sizes, heads)}"
                )
        in_unit_interval(self, "attention_dropout", "projection_dropout")
        if self.mlp_ratio <= 0:
            raise UserError(f"network.mlp_ratio must be positive, not {self.mlp_ratio}")

    @property
    def sizes(self) -> Any:
        """The sizes of ``size``, replaced where an option is not None."""
        preset = self.presets[self.size]
        given = {field.name: getattr(self, field.name) for field in fields(preset)}
        return type(preset)(**{k: getattr(preset, k) if value is None else value for k, value in given.items()})


def require_raster_order(who: str, step_BL: torch.Tensor) -> None:
    """Refuse plans other than: GIVEN tokens first, the others one at a time in raster order, ABSENT ones last.

    On one axis raster order is left to right. Rows may differ in how many tokens are given or absent.

    Raises:
        Unsupported: ``who`` does not serve this plan.
    """
    given_B1 = (step_BL == GIVEN).sum(1, keepdim=True)
    present_B1 = (step_BL < ABSENT).sum(1, keepdim=True)
    token_L = torch.arange(step_BL.shape[1], device=step_BL.device)
    raster_BL = torch.where(token_L < present_B1, (token_L - given_B1).clamp(min=GIVEN), ABSENT)
    if not torch.equal(step_BL, raster_BL):
        raise Unsupported(
            f"{who} serves raster order, one token at a time, given tokens before generated ones: "
            "use ordering=raster and partition=singles"
        )

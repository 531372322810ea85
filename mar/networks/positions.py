"""Positions on a grid of any number of axes: learned, and rotary.

B batch · L tokens · D width · P slots · H heads · A axes · F pairs of channels of a head
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from mar.errors import UserError

_BASE = 10_000.0  # Su et al. 2021; its A-th root on A axes (100 on images, as Heo et al. 2024)


class Positions(nn.Module):
    """Learned positions of the L tokens; with ``axes`` a sum of one vector for each coordinate."""

    def __init__(self, shape: tuple[int, ...], width: int, axes: bool) -> None:
        super().__init__()
        self.shape = shape if axes else (math.prod(shape),)
        self.tables = nn.ParameterList(nn.Parameter(0.02 * torch.randn(n, width)) for n in self.shape)

    def forward(self) -> torch.Tensor:
        """(L, D)."""
        first, *others = self.tables
        position = first
        for table in others:  # (..., D) of the axes so far -> (..., n, D)
            position = position.unsqueeze(-2) + table
        return position.flatten(0, -2)


Rotary = Literal["none", "sequence", "axes"]  # what turns keys and queries: nothing, the raster index, the coordinates


class Turns(nn.Module):
    """Rotary angles of ``front`` places that are not turned, one for the start by default, and of the L tokens."""

    def __init__(self, rotary: Rotary, shape: tuple[int, ...], channels: int, front: int = 1) -> None:
        super().__init__()
        angle_PF = None
        if rotary != "none":
            angle_PF = angles(shape if rotary == "axes" else (math.prod(shape),), channels)
            angle_PF = torch.cat([angle_PF.new_zeros(front - 1, channels // 2), angle_PF])
        self.register_buffer("angle_PF", angle_PF, persistent=False)

    def forward(self, place: torch.Tensor) -> torch.Tensor | None:
        """(..., F) at places (...); None: nothing is turned."""
        return F.embedding(place, self.angle_PF) if isinstance(self.angle_PF, torch.Tensor) else None


def angles(shape: tuple[int, ...], channels: int) -> torch.Tensor:
    """(1 + L, F): how far each pair of a head's ``channels`` is turned at each place; the start, place 0, is not.

    Su et al. 2021, "RoFormer", eq. 15. Pairs take turns in following the axes; each axis has its own frequencies, from
    one radian a token downwards.

    Raises:
        UserError: a head has fewer pairs of channels than the grid has axes.
    """
    axes, pairs = len(shape), channels // 2
    if channels % 2 or pairs < axes:
        raise UserError(f"network.rotary wants an even number of channels a head, at least {2 * axes}, not {channels}")
    coordinate_LA = torch.cartesian_prod(*(torch.arange(n).float() for n in shape)).reshape(math.prod(shape), axes)
    pair_F = torch.arange(pairs)
    frequency_F = (_BASE ** (1 / axes)) ** -((pair_F // axes) / math.ceil(pairs / axes))
    angle_LF = coordinate_LA[:, pair_F % axes] * frequency_F
    return torch.cat([torch.zeros(1, pairs), angle_LF])


def rotate(x_Hd: torch.Tensor, angle_F: torch.Tensor) -> torch.Tensor:
    """Queries or keys (..., H, d) turned by their angles (..., F): products depend on differences of coordinates."""
    cos, sin = angle_F.cos().unsqueeze(-2), angle_F.sin().unsqueeze(-2)
    a, b = x_Hd.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x_Hd.dtype)

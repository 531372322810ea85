"""A convolution whose kernel is masked at each location, and the gated residual block made of it.

B batch · L tokens · A axes of the grid · K offsets of a kernel · I inputs and O outputs of a layer · D width ·
C condition width · M locations of all rows
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Asked:
    """The locations (row, token) whose outputs are wanted, and what they see: tokens with a step before ``before``.

    Attributes:
        step_BL: int64, the step of every location.
        row_M, token_M: which locations.
        before_M: int64.
    """

    step_BL: torch.Tensor
    row_M: torch.Tensor
    token_M: torch.Tensor
    before_M: torch.Tensor


class LocalConvolution(nn.Module):
    """y[l] = sum over offsets k that l sees of (W_k x[l + k] + b_k): a bias for each offset says what is seen.

    On a grid of any number of axes; offsets that lead out of the grid from everywhere are left out. Unseen inputs are
    never touched. What training keeps is K times the input.

    Args:
        own: a location sees its own input whatever the plan (PixelCNN's mask B).
        renormalise: multiply by K over the number of offsets that are seen (Liu et al. 2018, eq. 1).
    """

    def __init__(
        self, shape: tuple[int, ...], n_inputs: int, n_outputs: int, kernel: int, dilation: int, own: bool,
        renormalise: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.n_inputs, self.renormalise = n_inputs, renormalise
        size_A, axes = torch.tensor(shape), len(shape)
        side = dilation * (torch.arange(kernel) - kernel // 2)
        offset_KA = torch.cartesian_prod(*[side] * axes).reshape(-1, axes)
        offset_KA = offset_KA[(offset_KA.abs() < size_A).all(1)]
        location_LA = torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, axes)
        there_LKA = location_LA[:, None] + offset_KA
        inside_LK = ((there_LKA >= 0) & (there_LKA < size_A)).all(-1)
        stride_A = torch.tensor([math.prod(shape[axis + 1 :]) for axis in range(axes)])
        self.neighbour_LK: torch.Tensor
        self.inside_LK: torch.Tensor
        self.own_K: torch.Tensor
        neighbour_LK = (there_LKA * stride_A).sum(-1).masked_fill(~inside_LK, 0)
        self.register_buffer("neighbour_LK", neighbour_LK, persistent=False)
        self.register_buffer("inside_LK", inside_LK, persistent=False)
        self.register_buffer("own_K", (offset_KA == 0).all(1) & own, persistent=False)
        self.kernels = nn.Linear(len(offset_KA) * n_inputs, n_outputs)
        self.seen = nn.Linear(len(offset_KA), n_outputs, bias=False)

    def forward(self, x_BLI: torch.Tensor, asked: Asked) -> torch.Tensor:
        """y_MO of the locations asked for."""
        neighbour_MK, row_M1 = self.neighbour_LK[asked.token_M], asked.row_M[:, None]
        earlier_MK = asked.step_BL[row_M1, neighbour_MK] < asked.before_M[:, None]
        sees_MK = earlier_MK & self.inside_LK[asked.token_M] | self.own_K
        table = F.pad(x_BLI.flatten(0, 1), (0, 0, 0, 1))  # unseen places point at the last line, zeros
        place_MK = torch.where(sees_MK, row_M1 * x_BLI.shape[1] + neighbour_MK, len(table) - 1)
        y_MO = self.kernels(F.embedding(place_MK, table).flatten(1)) + self.seen(sees_MK.to(x_BLI.dtype))
        if not self.renormalise:
            return y_MO
        return y_MO * (sees_MK.shape[1] / sees_MK.sum(1, keepdim=True).clamp(min=1))


Read = Callable[[LocalConvolution, torch.Tensor], torch.Tensor]  # a layer and its input -> its output


class GatedBlock(nn.Module):
    """h + W (tanh(f) ⊙ σ(g)), with (f, g) a convolution of the normalised input and a linear map of the condition.

    van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders", eq. 2 and 4.
    """

    def __init__(self, convolution: LocalConvolution, width: int, condition_width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = convolution
        self.condition = nn.Linear(condition_width, 2 * width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Linear(width, width)

    def forward(self, h_MD: torch.Tensor, condition_MC: torch.Tensor, read: Read) -> torch.Tensor:
        """h_MD; ``read`` applies the convolution at these locations."""
        f_MD, g_MD = (read(self.convolution, self.norm(h_MD)) + self.condition(condition_MC)).chunk(2, dim=1)
        return h_MD + self.mix(self.dropout(f_MD.tanh() * g_MD.sigmoid()))

"""Diagonal BiLSTM (van den Oord et al. 2016, 1601.06759, Sec. 3.2).

B batch · D width · F = D / 2 features · I rows · J columns · P = I + J - 1 diagonals · G = 4 F gates
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from mar.networks.pixel_rnn import PixelRNN, lstm


def skewed(x_BDIJ: torch.Tensor) -> torch.Tensor:
    """x_BDIP: row i moved i places to the right (Fig. 3), so that columns are the diagonals; zeros elsewhere."""
    I, J = x_BDIJ.shape[2:]
    return F.pad(x_BDIJ, (0, I)).flatten(2)[..., : I * (I + J - 1)].unflatten(2, (I, I + J - 1))


def unskewed(x_BDIP: torch.Tensor) -> torch.Tensor:
    """The x_BDIJ that was ``skewed``."""
    I, P = x_BDIP.shape[2:]
    return F.pad(x_BDIP.flatten(2), (0, I)).unflatten(2, (I, P + 1))[..., : P + 1 - I]


class DiagonalScan(nn.Module):
    """One direction, a diagonal at a time: each place reads the states above it and on its left."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width // 2
        self.from_input = nn.Conv2d(width, 4 * self.features, 1)
        self.from_state = nn.Conv1d(self.features, 4 * self.features, 2, bias=False)

    def forward(self, x_BDIJ: torch.Tensor) -> torch.Tensor:
        """h_BFIJ."""
        h_BFI = c_BFI = x_BDIJ.new_zeros(len(x_BDIJ), self.features, x_BDIJ.shape[2])
        diagonals = []
        gates_PBGI = skewed(self.from_input(x_BDIJ)).permute(3, 0, 1, 2).contiguous()  # each diagonal in one piece
        for gates_BGI in gates_PBGI.unbind():
            h_BFI, c_BFI = lstm(gates_BGI + self.from_state(F.pad(h_BFI, (1, 0))), c_BFI)
            diagonals.append(h_BFI)
        return unskewed(torch.stack(diagonals).permute(1, 2, 3, 0))


class DiagonalLayer(nn.Module):
    """Two scans, from either upper corner. The one from the right sees the rest of its row, the future: its states
    are read one row further down."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.from_left, self.from_right = DiagonalScan(width), DiagonalScan(width)

    def forward(self, x_BDIJ: torch.Tensor) -> torch.Tensor:
        """h_BFIJ."""
        right_BFIJ = self.from_right(x_BDIJ.flip(3)).flip(3)
        return self.from_left(x_BDIJ) + F.pad(right_BFIJ[:, :, :-1], (0, 0, 1, 0))


class DiagonalBiLSTM(PixelRNN):
    name: ClassVar[str] = "diagonal-bilstm"
    layer: ClassVar[type[nn.Module]] = DiagonalLayer

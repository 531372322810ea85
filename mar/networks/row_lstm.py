"""Row LSTM (van den Oord et al. 2016, 1601.06759, Sec. 3.1).

B batch · D width · F = D / 2 features · I rows · J columns
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from mar.networks.pixel_rnn import MaskedConv2d, PixelRNN, lstm


class RowLayer(nn.Module):
    """From the top row to the bottom one, a whole row at a time: each place reads three states of the row above.

    So it knows a triangle above it, and what is left of it through its input alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width // 2
        self.from_input = MaskedConv2d(width, 4 * self.features, (1, 3), itself=True)
        self.from_state = nn.Conv1d(self.features, 4 * self.features, 3, padding=1, bias=False)

    def forward(self, x_BDIJ: torch.Tensor) -> torch.Tensor:
        """h_BFIJ."""
        h_BFJ = c_BFJ = x_BDIJ.new_zeros(len(x_BDIJ), self.features, x_BDIJ.shape[3])
        rows = []
        for gates_BGJ in self.from_input(x_BDIJ).unbind(2):
            h_BFJ, c_BFJ = lstm(gates_BGJ + self.from_state(h_BFJ), c_BFJ)
            rows.append(h_BFJ)
        return torch.stack(rows, dim=2)


class RowLSTM(PixelRNN):
    name: ClassVar[str] = "row-lstm"
    layer: ClassVar[type[nn.Module]] = RowLayer

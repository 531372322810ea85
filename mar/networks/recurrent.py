"""Recurrent networks over the tokens in generation order: char-RNN when the order is left to right (Graves 2013,
"Generating sequences with recurrent neural networks").

B batch · T slots of a sequence · K new tokens · N layers · D width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mar.core.options import SHARE, at_least
from mar.networks.sequence import Sequence, SequenceOptions

Memory = tuple[Tensor, ...]  # h_NBD, and c_NBD of an LSTM


@dataclass(frozen=True)
class RecurrentOptions(SequenceOptions):
    depth: int = 2
    dropout: float = 0.0  # between layers, in training
    bounds: ClassVar = {"width": at_least(1), "depth": at_least(1), "dropout": SHARE}


class Recurrent(Sequence):
    Options = RecurrentOptions
    test_options: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2}
    cell: ClassVar[type[nn.LSTM] | type[nn.GRU]]

    def __init__(self, shape: tuple[int, ...], options: RecurrentOptions) -> None:
        super().__init__(shape, options)
        dropout = options.dropout if options.depth > 1 else 0.0  # torch warns where there is no layer to follow
        self.rnn = self.cell(options.width, options.width, options.depth, batch_first=True, dropout=dropout)

    def compile_parts(self) -> None:
        """Compile nothing: the layers are one library call."""

    def run(self, x_BTD: Tensor) -> Tensor:
        return self.rnn(x_BTD)[0]

    def advance(self, memory: Memory | None, x_BKD: Tensor, length_B: Tensor) -> Memory:
        x: Any = x_BKD
        if x_BKD.shape[1] > 1:  # a packed sequence stops at each row's own length, of at least one
            x = pack_padded_sequence(x_BKD, length_B.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        before: Any = memory[0] if memory is not None and self.cell is nn.GRU else memory
        last = self.rnn(x, before)[1]
        after: Memory = last if isinstance(last, tuple) else (last,)
        if memory is None:
            return after
        moved_B1 = (length_B > 0)[:, None]
        return tuple(torch.where(moved_B1, new, old) for new, old in zip(after, memory, strict=True))

    def state_of(self, memory: Memory) -> Tensor:
        return memory[0][-1]


class LSTM(Recurrent):
    """Hochreiter & Schmidhuber 1997."""

    cell = nn.LSTM


class GRU(Recurrent):
    """Cho et al. 2014."""

    cell = nn.GRU

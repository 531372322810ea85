"""PixelRNN (van den Oord et al. 2016, 1601.06759): Row LSTM (Sec. 3.1) and Diagonal BiLSTM (Sec. 3.2).

B batch · L = rows · columns tokens · C condition width · D width · F = D / 2 features of an LSTM · I rows · J columns ·
P = I + J - 1 diagonals · G = 4 F gates · M gathered tokens

    7 × 7 convolution, mask A; residual layers of an LSTM of width F and a 1 × 1 convolution to D; two of ReLU and 1 × 1
    (Table 1; the head's linear map is the last), normalised before, for heads of any kind

Mask A reads the tokens before a place in raster order, mask B the place itself too. So a feature in any layer depends
on the tokens before its place, and one pass gives all contexts, in raster order only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import Unsupported
from mar.core.options import at_least
from mar.networks.base import Network, NetworkOptions, State, require_raster_order


@dataclass(frozen=True)
class PixelRNNOptions(NetworkOptions):
    width: int = 64
    depth: int = 4
    bounds: ClassVar = {"depth": at_least(1), "width": ("even and at least 2", lambda n: n >= 2 and n % 2 == 0)}


class MaskedConv2d(nn.Conv2d):
    """An odd kernel over the places before each in raster order, with ``itself`` (mask B) or without (mask A)."""

    def __init__(self, width_in: int, width_out: int, kernel: tuple[int, int], itself: bool) -> None:
        rows, columns = kernel
        super().__init__(width_in, width_out, kernel, padding=(rows // 2, columns // 2))
        place = torch.arange(rows * columns).reshape(kernel)
        self.register_buffer("mask", place < rows * columns // 2 + itself, persistent=False)

    def forward(self, x_BDIJ: Tensor) -> Tensor:
        return F.conv2d(x_BDIJ, self.weight * self.mask, self.bias, padding=self.padding)  # pyright: ignore


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return (h, c) of a convolutional LSTM (eq. 3) from ``gates`` (B, 4 F, …) and the previous ``c`` (B, F, …)."""
    o, f, i, g = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


class PixelRNN(Network):
    """A kind of PixelRNN gives its ``layer(width)``: x_BDIJ -> F features of each place, of mask B.

    Generation repeats the forward pass for every token, over the rows down to the one it is in.
    """

    Options = PixelRNNOptions
    test_options: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2}
    one_pass: ClassVar[bool] = True
    name: ClassVar[str]
    layer: ClassVar[type[nn.Module]]

    def __init__(self, shape: tuple[int, ...], options: PixelRNNOptions) -> None:
        super().__init__(shape, options)
        if len(shape) != 2:
            raise Unsupported(f"{self.name} serves 2-D grids, not {len(shape)}-D ones: use network=lstm")
        self.columns, D = shape[1], options.width
        self.first = MaskedConv2d(D, D, (7, 7), itself=False)
        self.layers = nn.ModuleList(self.layer(D) for _ in range(options.depth))
        self.residuals = nn.ModuleList(nn.Conv2d(D // 2, D, 1) for _ in range(options.depth))
        self.norm, self.out = nn.LayerNorm(D), nn.Linear(D, D)

    def check(self, step_BL: Tensor) -> None:
        super().check(step_BL)
        require_raster_order(self.name, step_BL)

    def compile_parts(self) -> None:
        """Compile the layers one by one: they share code."""
        for layer in self.layers:
            layer.compile(dynamic=False)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        self.check(step_BL)  # any other order would leak later tokens
        return self._contexts(token_BLD, condition_BC, target_BL)

    def _contexts(self, token_BLD: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        """Return z_MD, each from the tokens before it in raster order."""
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        if not len(row_M):
            return token_BLD.new_zeros(0, self.context_width)
        rows = int(token_M.max()) // self.columns + 1  # rows below are never read
        token_BDIJ = token_BLD[:, : rows * self.columns].mT.unflatten(2, (rows, self.columns))
        x_BDIJ = self.first(token_BDIJ) + condition_BC[:, :, None, None]
        for layer, residual in zip(self.layers, self.residuals, strict=True):
            x_BDIJ = x_BDIJ + residual(layer(x_BDIJ))
        x_MD = x_BDIJ.flatten(2).mT[row_M, token_M]
        return self.out(self.norm(x_MD).relu()).relu()

    # Incremental generation: the default state holds the tokens; each query repeats the pass.

    def observe(self, state: State, token_BLD: Tensor, index_BL: Tensor) -> State:
        after = super().observe(state, token_BLD, index_BL)
        known_BL = after.step_BL < after.count
        gap = (known_BL[:, 1:] & ~known_BL[:, :-1]).any()
        many = index_BL.sum(1).amax() > 1 if after.count > 0 else gap
        if bool(gap | many):
            raise Unsupported(f"{self.name} serves raster order, one token at a time, and no adaptive order")
        return after

    def query(self, state: State, index_BL: Tensor) -> Tensor:
        return self._contexts(state.token_BLD, state.condition_BC, index_BL)


def skewed(x_BDIJ: Tensor) -> Tensor:
    """Return x_BDIP: row i shifted i places to the right (Fig. 3), so columns are the diagonals; zeros elsewhere."""
    I, J = x_BDIJ.shape[2:]
    return F.pad(x_BDIJ, (0, I)).flatten(2)[..., : I * (I + J - 1)].unflatten(2, (I, I + J - 1))


def unskewed(x_BDIP: Tensor) -> Tensor:
    """Invert ``skewed``."""
    I, P = x_BDIP.shape[2:]
    return F.pad(x_BDIP.flatten(2), (0, I)).unflatten(2, (I, P + 1))[..., : P + 1 - I]


class DiagonalScan(nn.Module):
    """One direction, a diagonal at a time: each place reads the states above it and on its left."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width // 2
        self.from_input = nn.Conv2d(width, 4 * self.features, 1)
        self.from_state = nn.Conv1d(self.features, 4 * self.features, 2, bias=False)

    def forward(self, x_BDIJ: Tensor) -> Tensor:
        """Return h_BFIJ."""
        h_BFI = c_BFI = x_BDIJ.new_zeros(len(x_BDIJ), self.features, x_BDIJ.shape[2])
        diagonals = []
        gates_PBGI = skewed(self.from_input(x_BDIJ)).permute(3, 0, 1, 2).contiguous()  # each diagonal in one piece
        for gates_BGI in gates_PBGI.unbind():
            h_BFI, c_BFI = lstm(gates_BGI + self.from_state(F.pad(h_BFI, (1, 0))), c_BFI)
            diagonals.append(h_BFI)
        return unskewed(torch.stack(diagonals).permute(1, 2, 3, 0))


class DiagonalLayer(nn.Module):
    """Two scans, one from each upper corner.

    The scan from the right depends on the rest of its row, so its states are read one row further down.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.from_left, self.from_right = DiagonalScan(width), DiagonalScan(width)

    def forward(self, x_BDIJ: Tensor) -> Tensor:
        """Return h_BFIJ."""
        right_BFIJ = self.from_right(x_BDIJ.flip(3)).flip(3)
        return self.from_left(x_BDIJ) + F.pad(right_BFIJ[:, :, :-1], (0, 0, 1, 0))


class DiagonalBiLSTM(PixelRNN):
    name: ClassVar[str] = "diagonal-bilstm"
    layer: ClassVar[type[nn.Module]] = DiagonalLayer


class RowLayer(nn.Module):
    """From the top row to the bottom one, a whole row at a time: each place reads three states of the row above.

    So a place depends on a triangle above it, and on its left through its input only.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width // 2
        self.from_input = MaskedConv2d(width, 4 * self.features, (1, 3), itself=True)
        self.from_state = nn.Conv1d(self.features, 4 * self.features, 3, padding=1, bias=False)

    def forward(self, x_BDIJ: Tensor) -> Tensor:
        """Return h_BFIJ."""
        h_BFJ = c_BFJ = x_BDIJ.new_zeros(len(x_BDIJ), self.features, x_BDIJ.shape[3])
        rows = []
        for gates_BGJ in self.from_input(x_BDIJ).unbind(2):
            h_BFJ, c_BFJ = lstm(gates_BGJ + self.from_state(h_BFJ), c_BFJ)
            rows.append(h_BFJ)
        return torch.stack(rows, dim=2)


class RowLSTM(PixelRNN):
    name: ClassVar[str] = "row-lstm"
    layer: ClassVar[type[nn.Module]] = RowLayer

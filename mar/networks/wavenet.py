"""Dilated causal convolutions over the tokens in generation order: WaveNet (van den Oord et al. 2016, 1609.03499).

B batch · T slots of a sequence · K new tokens · N layers · R slots of all rings · D width · G = 2 D gate channels

Layer i sees its input and the one d_i slots before it:

    g_i = tanh(V_i [x_{t - d_i}, x_t]) ⊙ σ(U_i [x_{t - d_i}, x_t])            (eq. 2)
    x_{i+1} = x_i + W_i g_i,        h = ReLU(Σ_i S_i g_i)                      (Fig. 4)

with d_i = 1, 2, 4, … in each block. So a state depends on 1 + blocks (2^layers - 1) inputs, the start included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.options import at_least, between
from mar.networks.sequence import Sequence, SequenceOptions


@dataclass(frozen=True)
class WaveNetOptions(SequenceOptions):
    width: int = 64
    layers: int = 6  # of a block: dilations 1, 2, …, 2^(layers - 1)
    blocks: int = 2
    bounds: ClassVar = {"width": at_least(1), "layers": between(1, 24), "blocks": at_least(1)}


class Stack(nn.Module):
    """The layers, over whole sequences and one slot at a time."""

    def __init__(self, width: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.width, self.dilations = width, dilations
        self.gates = nn.ModuleList(nn.Linear(2 * width, 2 * width) for _ in dilations)
        # none after the last
        self.residuals = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in dilations[1:])
        self.skip = nn.Linear(len(dilations) * width, width)  # the skip connections of all layers, summed

    def forward(self, x_BTD: Tensor) -> Tensor:
        skip_BTD = self.skip.bias
        last = len(self.dilations) - 1
        for i, weight_DD in enumerate(self.skip.weight.split(self.width, dim=1)):
            a, b = self.gates[i](torch.cat([_delayed(x_BTD, self.dilations[i]), x_BTD], dim=-1)).chunk(2, dim=-1)
            gated_BTD = a.tanh() * b.sigmoid()
            skip_BTD = skip_BTD + F.linear(gated_BTD, weight_DD)
            if i < last:
                x_BTD = x_BTD + self.residuals[i](gated_BTD)
        return skip_BTD.relu()


def _delayed(x_BTD: Tensor, by: int) -> Tensor:
    """The input ``by`` slots before; zeros before the first."""
    T = x_BTD.shape[1]
    return F.pad(x_BTD[:, : max(0, T - by)], (0, 0, min(by, T), 0))


class Rings:
    """Fast WaveNet (Le Paine et al. 2016, 1611.09482): layer i's last d_i inputs in a ring, written in place.

    All layers' delayed inputs are read, multiplied and written together, so that a slot costs five small operations a
    layer and a dozen more, however long the sequence. Rows advance independently, since their sets differ in size.
    """

    def __init__(self, stack: Stack, x_BD: Tensor) -> None:
        D, device = stack.width, x_BD.device
        gates: Any = stack.gates
        residuals: Any = stack.residuals
        weight_N = [gate.weight.T.to(x_BD.dtype).split(D) for gate in gates]  # (D, G) for the past and for now
        self.past_weight_NDG = torch.stack([past for past, _ in weight_N])
        self.bias_N1G = torch.stack([gate.bias for gate in gates])[:, None].to(x_BD.dtype)
        self.now_weight_N = [now for _, now in weight_N]
        self.residual_N = [residual.weight.T.to(x_BD.dtype) for residual in residuals]
        self.skip = stack.skip
        self.dilation_N1 = torch.tensor(stack.dilations, device=device)[:, None]
        self.offset_N1 = self.dilation_N1.cumsum(0) - self.dilation_N1
        self.ring_RBD = x_BD.new_zeros(sum(stack.dilations), *x_BD.shape)
        self.row_B = torch.arange(len(x_BD), device=device)
        self.count_B = torch.zeros_like(self.row_B)  # inputs so far
        self.h_BD = torch.zeros_like(x_BD)

    def push(self, x_BD: Tensor, real_B: Tensor) -> None:
        """One more input, in the rows ``real_B`` (bool)."""
        slot_NB = self.offset_N1 + self.count_B % self.dilation_N1
        past_NBD = self.ring_RBD[slot_NB, self.row_B]
        from_past_NBG = torch.baddbmm(self.bias_N1G, past_NBD, self.past_weight_NDG)
        inputs, gated = [], []
        for i, gate_BG in enumerate(from_past_NBG.unbind()):
            inputs.append(x_BD)
            a, b = torch.addmm(gate_BG, x_BD, self.now_weight_N[i]).chunk(2, dim=-1)
            gated.append(a.tanh() * b.sigmoid())
            if i < len(self.residual_N):
                x_BD = torch.addmm(x_BD, gated[-1], self.residual_N[i])
        real_B1 = real_B[:, None]
        self.ring_RBD[slot_NB, self.row_B] = torch.where(real_B1, torch.stack(inputs), past_NBD)
        self.h_BD = torch.where(real_B1, self.skip(torch.cat(gated, dim=-1)).relu(), self.h_BD)
        self.count_B = self.count_B + real_B


class WaveNet(Sequence):
    cosine_token_init: ClassVar[bool] = True
    Options = WaveNetOptions
    test_options: ClassVar[dict[str, Any]] = {"width": 8, "layers": 2, "blocks": 2}

    def __init__(self, shape: tuple[int, ...], options: WaveNetOptions) -> None:
        super().__init__(shape, options)
        self.stack = Stack(options.width, tuple(2**i for i in range(options.layers)) * options.blocks)

    def compile_parts(self) -> None:
        """The layers over whole sequences: few shapes where targets reach the last step."""
        self.stack.compile(dynamic=False)

    def run(self, x_BTD: Tensor) -> Tensor:
        return self.stack(x_BTD)

    def advance(self, memory: Rings | None, x_BKD: Tensor, length_B: Tensor) -> Rings:
        rings = Rings(self.stack, x_BKD[:, 0]) if memory is None else memory
        for k, x_BD in enumerate(x_BKD.unbind(1)):
            rings.push(x_BD, k < length_B)
        return rings

    def state_of(self, memory: Rings) -> Tensor:
        return memory.h_BD

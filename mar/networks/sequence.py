"""The base of networks that run over the tokens in generation order: recurrent and dilated-convolution networks.

B batch · L tokens · T slots of a sequence · K new tokens · D width · C condition width · M gathered tokens

The sequence is a start and then the tokens by step, GIVEN ones first, ties by grid index; each token carries its own
position and the condition. The state after n tokens depends on these n only, so a target with n tokens of smaller steps
reads that state, whatever its set and the other targets. The state does not depend on the next position: the readout
joins it with the position of the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.options import at_least
from mar.networks.attention import Positions
from mar.networks.base import Network, NetworkOptions, require_raster_order

Position = Literal["token", "axes", "none"]


@dataclass(frozen=True)
class SequenceOptions(NetworkOptions):
    """Positions: one learned vector for each token, the sum of one for each coordinate, or none (raster order only)."""

    width: int = 128
    position: Position = "token"
    bounds: ClassVar = {"width": at_least(1)}


@dataclass
class RecurrentState:
    """The state of a generation. The network may write into ``memory``, so one state serves one generation."""

    condition_BC: Tensor
    memory: Any


class Readout(nn.Module):
    """z of a target from its state h and its position (p, q): h + W (tanh(V h + p) ⊙ σ(U h + q)), normalised.

    The gate lets each position select from the state; a sum of the two could not.
    """

    def __init__(self, shape: tuple[int, ...], width: int, position: Position) -> None:
        super().__init__()
        self.position = _positions(shape, 2 * width, position, std=0.5)  # comparable to V h from the start
        self.hidden, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, h_MD: Tensor, token_M: Tensor | None = None) -> Tensor:
        """Return z_MD of targets ``token_M``; with None, z_BLD from h_BLD of all tokens in their places."""
        hidden = self.hidden(h_MD)
        if self.position is not None:
            table = self.position()
            hidden = hidden + (table if token_M is None else F.embedding(token_M, table))
        a, b = hidden.chunk(2, dim=-1)
        return self.norm(h_MD + self.out(a.tanh() * b.sigmoid()))


def _positions(shape: tuple[int, ...], width: int, position: Position, std: float) -> Positions | None:
    if position == "none":
        return None
    positions = Positions(shape, width, position == "axes")
    for table in positions.tables:
        nn.init.normal_(table, std=std)
    return positions


class Sequence(Network):
    """One pass. A subclass maps inputs to states: ``run``, ``advance`` and ``state_of``."""

    one_pass: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: SequenceOptions) -> None:
        super().__init__(shape, options)
        width = options.width
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.source = _positions(shape, width, options.position, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.readout = Readout(shape, width, options.position)

    def run(self, x_BTD: Tensor) -> Tensor:
        """Return h_BTD: the state after each input, a function of this input and earlier ones."""
        raise NotImplementedError

    def advance(self, memory: Any, x_BKD: Tensor, length_B: Tensor) -> Any:
        """Return the memory after the first ``length_B`` (possibly 0) of K inputs; ``memory`` is None at the start."""
        raise NotImplementedError

    def state_of(self, memory: Any) -> Tensor:
        """Return h_BD: the state after the last input."""
        raise NotImplementedError

    def check(self, step_BL: Tensor) -> None:
        super().check(step_BL)
        if self.source is None:
            require_raster_order("network.position=none", step_BL)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        if self.source is None:
            self.check(step_BL)
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        if not len(row_M):
            return token_BLD.new_zeros(0, self.context_width)
        order_BL, step_of_rank_BL = _generation_order(step_BL)
        before_BL = torch.searchsorted(step_of_rank_BL, step_BL.contiguous())  # tokens of smaller steps
        before_M = before_BL[row_M, token_M]
        n = int(before_M.max())  # later inputs are never read
        x_BTD = torch.cat([self._start(condition_BC), self._known(token_BLD, condition_BC, order_BL, n)], dim=1)
        h_BTD = self.run(x_BTD)
        if n + 1 == self.n_tokens and len(row_M) == before_BL.numel() and _one_by_one(before_BL):
            return self.readout(h_BTD).flatten(0, 1)
        h_MD = F.embedding(row_M * (n + 1) + before_M, h_BTD.flatten(0, 1))
        return self.readout(h_MD, token_M)

    def _start(self, condition_BC: Tensor) -> Tensor:
        """Return x_B1D."""
        return self.norm(self.start + condition_BC)[:, None]

    def _known(self, token_BLD: Tensor, condition_BC: Tensor, place_BK: Tensor | None, n: int) -> Tensor:
        """Return the inputs (B, n, D): the tokens at the first n of ``place_BK``; None: the first n tokens."""
        table = None if self.source is None else self.source()
        if place_BK is None:
            x, position = token_BLD[:, :n], None if table is None else table[:n]
        else:
            place_BK = place_BK[:, :n]
            x = token_BLD.gather(1, place_BK[..., None].expand(-1, -1, token_BLD.shape[-1]))
            position = None if table is None else F.embedding(place_BK, table)
        x = x + condition_BC[:, None]
        return self.norm(x if position is None else x + position)

    # Incremental generation: each token is processed once.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> RecurrentState:
        one_B = torch.ones(len(absent_BL), dtype=torch.int64, device=absent_BL.device)
        return RecurrentState(condition_BC, self.advance(None, self._start(condition_BC), one_B))

    def observe(self, state: RecurrentState, token_BLD: Tensor, index_BL: Tensor) -> RecurrentState:
        place_BK, length_B = _places(index_BL)
        K = place_BK.shape[1]
        if not K:
            return state
        x_BKD = self._known(token_BLD, state.condition_BC, place_BK, K)
        return RecurrentState(state.condition_BC, self.advance(state.memory, x_BKD, length_B))

    def query(self, state: RecurrentState, index_BL: Tensor) -> Tensor:
        row_M, token_M = index_BL.nonzero(as_tuple=True)
        return self.readout(self.state_of(state.memory)[row_M], token_M)


def _generation_order(step_BL: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return the tokens by step, ties by index (None: they are in order), and their steps, step_of_rank_BL."""
    if bool((step_BL[:, 1:] >= step_BL[:, :-1]).all()):
        return None, step_BL.contiguous()
    step_of_rank_BL, order_BL = step_BL.sort(dim=1, stable=True)
    return order_BL, step_of_rank_BL


def _one_by_one(before_BL: Tensor) -> bool:
    """True if token l comes after l others in every row."""
    return bool((before_BL == torch.arange(before_BL.shape[1], device=before_BL.device)).all())


def _places(index_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Return place_BK, the marked tokens of each row by grid index, padded with token 0, and their number length_B.

    ``nonzero`` is much faster here than the sort of ``gather_padded``: a step marks few tokens.
    """
    row_M, token_M = index_BL.nonzero(as_tuple=True)
    length_B = index_BL.sum(1)
    first_B = length_B.cumsum(0) - length_B
    place_BK = row_M.new_zeros(len(index_BL), int(length_B.max()))
    place_BK[row_M, torch.arange(len(row_M), device=row_M.device) - first_B[row_M]] = token_M
    return place_BK, length_B

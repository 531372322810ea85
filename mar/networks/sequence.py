"""Networks that run over the tokens in generation order: what recurrent and dilated-convolution networks share.

B batch · L tokens · T slots of a sequence · K new tokens · D width · C condition width · M gathered tokens

The sequence is a start and then the tokens by step, GIVEN ones first, ties by grid index; each token brings its own
position and the condition. Its state after n tokens knows these n and nothing else, so a target with n tokens of
smaller steps reads just that state, whatever its set and whoever else asks. The state cannot know which position is
asked for next: the readout joins it with the target's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from mar.networks.attention import Positions
from mar.networks.base import Network, NetworkOptions, at_least_one
from mar.networks.fixed_order import require_raster_order

Position = Literal["token", "axes", "none"]


@dataclass(frozen=True)
class SequenceOptions(NetworkOptions):
    """Positions: one learned vector a token, the sum of one for each coordinate, or none (raster order alone)."""

    width: int = 128
    position: Position = "token"

    def __post_init__(self) -> None:
        at_least_one(self, "width")


@dataclass
class Running:
    """Incremental generation. The network may write into ``memory``: a state is used along one generation."""

    condition_BC: torch.Tensor
    memory: Any


class Readout(nn.Module):
    """z of a target from the state h that it reads and its position, p and q: h + W (tanh(V h + p) ⊙ σ(U h + q)),
    normalised.

    The gate lets each position choose what it takes from the state, which a sum of the two could not.
    """

    def __init__(self, shape: tuple[int, ...], width: int, position: Position) -> None:
        super().__init__()
        self.position = _positions(shape, 2 * width, position, std=0.5)  # to be heard beside V h from the start
        self.hidden, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, h_MD: torch.Tensor, token_M: torch.Tensor | None = None) -> torch.Tensor:
        """z_MD of targets ``token_M``; None: h_BLD of all tokens in their places, and z_BLD."""
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
    """One pass. Each kind says how states follow from inputs: ``run``, ``advance`` and ``state_of``."""

    one_pass: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...], options: SequenceOptions) -> None:
        super().__init__()
        self.n_tokens, width = math.prod(shape), options.width
        self.token_width = self.condition_width = self.context_width = width
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.source = _positions(shape, width, options.position, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.readout = Readout(shape, width, options.position)

    def run(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """h_BTD: the state after each input, a function of it and of earlier ones."""
        raise NotImplementedError

    def advance(self, memory: Any, x_BKD: torch.Tensor, length_B: torch.Tensor) -> Any:
        """The memory after the first ``length_B`` (maybe 0) of K inputs; ``memory`` None: before any."""
        raise NotImplementedError

    def state_of(self, memory: Any) -> torch.Tensor:
        """h_BD: the state after the last input."""
        raise NotImplementedError

    def check(self, step_BL: torch.Tensor) -> None:
        super().check(step_BL)
        if self.source is None:
            require_raster_order("network.position=none", step_BL)

    def forward(
        self,
        token_BLD: torch.Tensor,
        step_BL: torch.Tensor,
        condition_BC: torch.Tensor,
        target_BL: torch.Tensor,
    ) -> torch.Tensor:
        if self.source is None:
            self.check(step_BL)
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        if not len(row_M):
            return token_BLD.new_zeros(0, self.context_width)
        order_BL, step_of_rank_BL = _generation_order(step_BL)
        before_BL = torch.searchsorted(step_of_rank_BL, step_BL.contiguous())  # tokens of smaller steps
        before_M = before_BL[row_M, token_M]
        n = int(before_M.max())  # nobody reads what comes later
        x_BTD = torch.cat([self._start(condition_BC), self._known(token_BLD, condition_BC, order_BL, n)], dim=1)
        h_BTD = self.run(x_BTD)
        if n + 1 == self.n_tokens and len(row_M) == before_BL.numel() and _one_by_one(before_BL):
            return self.readout(h_BTD).flatten(0, 1)
        h_MD = F.embedding(row_M * (n + 1) + before_M, h_BTD.flatten(0, 1))
        return self.readout(h_MD, token_M)

    def _start(self, condition_BC: torch.Tensor) -> torch.Tensor:
        """x_B1D."""
        return self.norm(self.start + condition_BC)[:, None]

    def _known(
        self, token_BLD: torch.Tensor, condition_BC: torch.Tensor, place_BK: torch.Tensor | None, n: int
    ) -> torch.Tensor:
        """Inputs (B, n, D): the tokens at the first n of ``place_BK``; None: the first n tokens."""
        table = None if self.source is None else self.source()
        if place_BK is None:
            x, position = token_BLD[:, :n], None if table is None else table[:n]
        else:
            place_BK = place_BK[:, :n]
            x = token_BLD.gather(1, place_BK[..., None].expand(-1, -1, token_BLD.shape[-1]))
            position = None if table is None else F.embedding(place_BK, table)
        x = x + condition_BC[:, None]
        return self.norm(x if position is None else x + position)

    # Incremental generation: each token is taken in once.

    def begin(self, condition_BC: torch.Tensor, absent_BL: torch.Tensor) -> Running:
        one_B = torch.ones(len(absent_BL), dtype=torch.int64, device=absent_BL.device)
        return Running(condition_BC, self.advance(None, self._start(condition_BC), one_B))

    def observe(self, state: Running, token_BLD: torch.Tensor, index_BL: torch.Tensor) -> Running:
        place_BK, length_B = _places(index_BL)
        K = place_BK.shape[1]
        if not K:
            return state
        x_BKD = self._known(token_BLD, state.condition_BC, place_BK, K)
        return Running(state.condition_BC, self.advance(state.memory, x_BKD, length_B))

    def query(self, state: Running, index_BL: torch.Tensor) -> torch.Tensor:
        row_M, token_M = index_BL.nonzero(as_tuple=True)
        return self.readout(self.state_of(state.memory)[row_M], token_M)


def _generation_order(step_BL: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
    """(order_BL, step_of_rank_BL): the tokens by step, ties by index, and their steps. None: they are in order."""
    if bool((step_BL[:, 1:] >= step_BL[:, :-1]).all()):
        return None, step_BL.contiguous()
    step_of_rank_BL, order_BL = step_BL.sort(dim=1, stable=True)
    return order_BL, step_of_rank_BL


def _one_by_one(before_BL: torch.Tensor) -> bool:
    """Whether token l comes after l others, in every row."""
    return bool((before_BL == torch.arange(before_BL.shape[1], device=before_BL.device)).all())


def _places(index_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(place_BK, length_B): the tokens marked in each row by grid index, padded with token 0 to the longest row."""
    row_M, token_M = index_BL.nonzero(as_tuple=True)
    length_B = index_BL.sum(1)
    first_B = length_B.cumsum(0) - length_B
    place_BK = row_M.new_zeros(len(index_BL), int(length_B.max()))
    place_BK[row_M, torch.arange(len(row_M), device=row_M.device) - first_B[row_M]] = token_M
    return place_BK, length_B

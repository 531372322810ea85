"""The contract of networks: from the known tokens, one context vector for each wanted token.

B batch · L tokens · D width · C condition width · M gathered tokens

A network reads tensors and the shape of its grid, never an ordering: ``step_BL`` alone says which tokens a target may
depend on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mar.core.errors import Unsupported
from mar.core.noise import Noise
from mar.core.options import Options

GIVEN = -1  # the same values as orderings.GIVEN and ABSENT (a test holds them together)
ABSENT = 2**30


@dataclass(frozen=True)
class NetworkOptions(Options):
    """The base of the options of networks."""

    family: ClassVar[str] = "network"


@dataclass(frozen=True)
class GenerationOptions:
    """The base of the options of networks in generation (``network.sampling``)."""

    @property
    def exact(self) -> bool:
        """True if contexts in generation equal those of the full forward pass."""
        return True


@dataclass
class State:
    """The state of a generation without a cache: the tokens observed so far. Caching networks define their own."""

    condition_BC: Tensor
    token_BLD: Tensor
    step_BL: Tensor  # unknown tokens stand at the current step
    count: int  # the current step; -1 until the given tokens are observed

    def observed(self, token_BLD: Tensor, index_BL: Tensor) -> State:
        """Return the state after the tokens of one step."""
        count = self.count + 1
        waiting_BL = (self.step_BL == self.count) & ~index_BL
        return State(
            self.condition_BC,
            torch.where(index_BL[..., None], token_BLD.to(self.token_BLD.dtype), self.token_BLD),
            torch.where(waiting_BL, count, self.step_BL),
            count,
        )


class Network(nn.Module):
    """Constructed as ``Network(shape, options)``, where ``shape`` is the grid's, e.g. ``(16, 16)``."""

    Options: ClassVar[type] = NetworkOptions
    test_options: ClassVar[dict[str, Any]] = {}  # options that make a small instance, for ``mar verify``
    one_pass: ClassVar[bool] = False  # every conditional of any plan in one forward pass
    order_invariant: ClassVar[bool] = False  # a context depends on the set of known tokens, not on their order
    joint_sets: bool = False  # a context depends on which tokens its set holds: an asked-for set is one set
    shares_plan: ClassVar[bool] = False  # wants one plan for the whole batch: training draws one for each iteration
    reads_tokens: ClassVar[bool] = True  # False for a baseline whose contexts depend on no token
    condition_length: int = 0  # of the longest sequence of conditions that it reads, (B, T, C); 0: none, always (B, C)
    cosine_token_init: ClassVar[bool] = False  # categories start as codes of unit scale, not as small random vectors

    token_width: int  # of the embedded tokens
    condition_width: int  # C
    context_width: int  # D of the context vectors
    sampling: GenerationOptions = GenerationOptions()  # the sampler replaces this object; do not mutate it

    def __init__(self, shape: tuple[int, ...] = (), options: Any = None) -> None:
        """Keep the options, the number of tokens and the widths that the options name; ``width`` names all three."""
        super().__init__()
        self.options, self.n_tokens = options, math.prod(shape)
        for name in ("token_width", "condition_width", "context_width"):
            if (width := getattr(options, name, getattr(options, "width", None))) is not None:
                setattr(self, name, width)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        """z_MD for the M targets, ``target_BL.nonzero()`` in row-major order.

        For each target (b, l), z depends on token[b, m] only where step[b, m] < step[b, l]. ABSENT tokens are never
        a key, a query or a target. If not ``one_pass``, all targets of a row share one known set: the tokens with a
        step below the smallest step among the row's targets.

        Args:
            token_BLD: embedded tokens; entries of unknown tokens are arbitrary.
            step_BL: int64, the AR step of each token (GIVEN, 0.., ABSENT).
            condition_BC: the embedded class, or the null condition; (B, T, C) of sequences (``condition_length``).
            target_BL: bool, the wanted tokens.
        """
        raise NotImplementedError

    def row_floats(self, n_tokens: int) -> int:
        """Return about how many numbers the forward pass of a row holds at its peak, without gradients.

        For each token 16 vectors: a residual stream, queries, keys, values and a hidden layer of four widths.
        """
        return 16 * self.context_width * n_tokens

    def check(self, step_BL: Tensor) -> None:
        """Raise Unsupported for plans that this network cannot serve; name the network and a setting that works."""
        if self.shares_plan and len(step_BL) > 1 and not bool((step_BL == step_BL[:1]).all()):
            raise Unsupported(f"{type(self).__name__} wants one plan for the whole batch: use a fixed ordering")

    def resample(self, generator: Noise) -> None:
        """Sample the random structure of the network again (the connectivity of MADE)."""

    def compile_parts(self) -> None:
        """Compile in place, for few shapes; by default the whole forward pass."""
        self.compile(dynamic=False)

    # Incremental generation. Defaults repeat the full forward pass; networks with a cache override all three.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> Any:
        """Return the state before any token is known. ``absent_BL`` (bool) marks padding."""
        token_BLD = torch.zeros(*absent_BL.shape, self.token_width, device=absent_BL.device)
        step_BL = torch.where(absent_BL, ABSENT, GIVEN)
        return State(condition_BC, token_BLD, step_BL, count=GIVEN)

    def observe(self, state: Any, token_BLD: Tensor, index_BL: Tensor) -> Any:
        """Return the state after the tokens of one step (``index_BL``, bool). The first call passes the GIVEN tokens.

        The caller reuses the memory of ``token_BLD``: copy the tokens that the state keeps.
        """
        return state.observed(token_BLD, index_BL)

    def query(self, state: Any, index_BL: Tensor) -> Tensor:
        """Return z_MD of the unknown tokens ``index_BL`` (bool) given all observed tokens.

        With ``joint_sets`` they are one set: a set chosen among all unknown tokens is asked for again.
        """
        return self(state.token_BLD, state.step_BL, state.condition_BC, index_BL)

    # Reading one plan again and again, each time with more of it known, as speculation does.

    def memory(self, batch: int, device: torch.device) -> Any:
        """Return what ``read`` keeps between passes; None: nothing, and ``read`` is the forward pass.

        ``memory.forget(known_BL)`` drops all tokens but these (bool): other values may come to their places.
        """
        return None

    def read(self, memory: Any, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        """Return what ``forward`` returns, with what ``memory`` keeps of tokens read before."""
        return self(token_BLD, step_BL, condition_BC, target_BL)


def require_raster_order(who: str, step_BL: Tensor) -> None:
    """Raise Unsupported unless GIVEN tokens come first, others one at a time in raster order, ABSENT ones last.

    Rows may differ in how many tokens are given or absent. ``who`` is named in the message.
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

"""What a network is: from what is known, one context vector for each wanted token.

B batch · L tokens · D width · C condition width · M gathered tokens

A network knows tensors and the shape of its grid. It never knows an ordering: who may see whom is read from
``step_BL`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise

GIVEN = -1  # the same values as orderings.GIVEN and ABSENT (a test holds them together)
ABSENT = 2**30


@dataclass(frozen=True)
class NetworkOptions:
    """Base of every network's options."""


@dataclass(frozen=True)
class GenerationOptions:
    """Base of every network's options in generation (``network.sampling``)."""

    @property
    def exact(self) -> bool:
        """Contexts in generation are those of the full forward pass."""
        return True


def at_least_one(options: Any, *names: str) -> None:
    """Raises UserError if one of these numbers is below 1."""
    for name in names:
        if (value := getattr(options, name)) < 1:
            raise UserError(f"network.{name} must be at least 1, not {value}")


def in_unit_interval(options: Any, *names: str) -> None:
    """Raises UserError if one of these shares is not in [0, 1)."""
    for name in names:
        if not 0.0 <= (value := getattr(options, name)) < 1.0:
            raise UserError(f"network.{name} must be in [0, 1), not {value}")


@dataclass
class State:
    """Incremental generation without a cache: everything observed so far. Caching networks have their own."""

    condition_BC: torch.Tensor
    token_BLD: torch.Tensor
    step_BL: torch.Tensor  # unknown tokens stand at the current step
    count: int  # the current step; -1 until the given tokens are observed


class Network(nn.Module):
    """Constructed as ``Network(shape, options)``, where ``shape`` is the grid's, e.g. ``(16, 16)``.

    Attributes:
        token_width: width of the embedded tokens that it reads.
        condition_width: C.
        context_width: D of the context vectors that it returns.
    """

    Options: ClassVar[type] = NetworkOptions
    tiny: ClassVar[dict[str, Any]] = {}  # options that make a small instance, for ``mar verify``
    one_pass: ClassVar[bool] = False  # every conditional of any plan in one forward pass
    orderless: ClassVar[bool] = False  # a context depends on which tokens are known, not on the order they came in
    shares_plan: ClassVar[bool] = False  # wants one plan for the whole batch: training draws one for each iteration
    reads_tokens: ClassVar[bool] = True  # False of a baseline whose contexts depend on no token
    token_codes: ClassVar[bool] = False  # categories start as codes of unit scale, not as small random vectors

    token_width: int
    condition_width: int
    context_width: int
    sampling: GenerationOptions = GenerationOptions()  # replaced, never mutated, by who samples

    def forward(
        self,
        token_BLD: torch.Tensor,
        step_BL: torch.Tensor,
        condition_BC: torch.Tensor,
        target_BL: torch.Tensor,
    ) -> torch.Tensor:
        """z_MD for the M targets, ``target_BL.nonzero()`` in row-major order.

        For each target (b, l), z depends on token[b, m] only where step[b, m] < step[b, l]. ABSENT tokens are never
        a key, a query or a target. If not ``one_pass``, all targets of a row share one known set: the tokens with a
        step below the smallest step among the row's targets.

        Args:
            token_BLD: embedded tokens; those that are not known hold anything.
            step_BL: int64, the AR step of each token (GIVEN, 0.., ABSENT).
            condition_BC: the embedded class, or the null condition.
            target_BL: bool, the tokens whose context is wanted.
        """
        raise NotImplementedError

    def row_floats(self, n_tokens: int) -> int:
        """About how many numbers a row's forward pass holds at its most, without gradients.

        For each token 16 vectors of the context width: a residual stream, queries, keys, values and a hidden layer of
        four widths, with what PyTorch holds beside them.
        """
        return 16 * self.context_width * n_tokens

    def check(self, step_BL: torch.Tensor) -> None:
        """Raises Unsupported, by name and with what would work, if this network cannot serve such plans."""
        if self.shares_plan and len(step_BL) > 1 and not bool((step_BL == step_BL[:1]).all()):
            raise Unsupported(f"{type(self).__name__} wants one plan for the whole batch: use a fixed ordering")

    def resample(self, generator: Noise) -> None:
        """Draw the network's random structure anew (MADE's connectivity)."""

    def compile_parts(self) -> None:
        """Compile in place, for few shapes: here the whole forward pass."""
        self.compile(dynamic=False)

    # Incremental generation. Defaults repeat the full forward pass; networks with a cache override all three.

    def begin(self, condition_BC: torch.Tensor, absent_BL: torch.Tensor) -> Any:
        """The state before anything is known. ``absent_BL`` (bool) marks padding."""
        token_BLD = torch.zeros(*absent_BL.shape, self.token_width, device=absent_BL.device)
        step_BL = torch.where(absent_BL, ABSENT, GIVEN)
        return State(condition_BC, token_BLD, step_BL, count=GIVEN)

    def observe(self, state: Any, token_BLD: torch.Tensor, index_BL: torch.Tensor) -> Any:
        """Take in the tokens of one step (``index_BL``, bool). The first call gives the GIVEN tokens, maybe none.

        ``token_BLD`` is the caller's, who goes on writing there: copy what is kept of it.
        """
        count = state.count + 1
        waiting_BL = (state.step_BL == state.count) & ~index_BL
        return State(
            state.condition_BC,
            torch.where(index_BL[..., None], token_BLD.to(state.token_BLD.dtype), state.token_BLD),
            torch.where(waiting_BL, count, state.step_BL),
            count,
        )

    def query(self, state: Any, index_BL: torch.Tensor) -> torch.Tensor:
        """z_MD for the unknown tokens ``index_BL`` (bool) given everything observed."""
        return self(state.token_BLD, state.step_BL, state.condition_BC, index_BL)

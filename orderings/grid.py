"""The token lattice: 1-D for text and audio, 2-D for images, 3-D for images with channels.

L tokens · D grid dimensions
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from orderings.lazy import torch


class MarError(Exception):
    """An error that the user can correct; the message says how, in one line."""


class Unsupported(MarError, ValueError):
    """A component that cannot serve this grid, plan or request; the message says why and names one that can."""


class InvalidRequest(MarError, ValueError):
    """A name, an option, a text or a file that is wrong."""


class UnknownName(InvalidRequest):
    """A name or an option that does not exist; the message gives the nearest name that does."""

    def __init__(self, what: str, name: str, choices: Iterable[str]) -> None:
        names = sorted(choices)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        rest = f"choose from {', '.join(names)}" if names else "it has none"
        super().__init__(f"unknown {what} {name!r}: {hint}{rest}")


@dataclass(frozen=True)
class Grid:
    """A lattice of ``shape`` tokens, numbered row-major: token l sits at ``coordinates()[l]``."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if not 1 <= len(shape) <= 3 or min(shape) < 1:
            raise InvalidRequest(f"a grid has one to three positive sizes, not {'x'.join(map(str, self.shape))!r}")
        object.__setattr__(self, "shape", shape)

    @classmethod
    def parse(cls, text: str) -> Grid:
        """``"16x16"`` → Grid((16, 16)); ``"64"`` → Grid((64,))."""
        try:
            return cls(tuple(int(n) for n in text.lower().split("x")))
        except ValueError:  # int's, or the one above
            raise InvalidRequest(f"a grid is written like 16x16, 64 or 8x8x3, not {text!r}") from None

    def __len__(self) -> int:
        return self.size

    @cached_property
    def size(self) -> int:
        """The number of tokens."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))

    @cached_property
    def ndim(self) -> int:
        return len(self.shape)

    def coordinates(self) -> torch.Tensor:
        """(L, D) integers: the coordinates of every token, in row-major order."""
        return torch.cartesian_prod(*(torch.arange(n) for n in self.shape)).reshape(len(self), self.ndim)

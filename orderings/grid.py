"""The token lattice: 1-D for text and audio, 2-D for images, 3-D for images with channels or video; torch on demand.

L tokens · D grid dimensions
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Torch:
        """torch, loaded when it is first used: names, options and texts of plans need none of its two seconds."""

        def __getattr__(self, name: str) -> Any:
            import torch

            value = getattr(torch, name)
            setattr(self, name, value)  # the next access finds it without this function
            return value

    torch = _Torch()


class MarError(Exception):
    """An error that the user can correct; the message says how, in one line."""

    def __str__(self) -> str:
        text = " ".join(super().__str__().split("\n"))
        return text if len(text) <= 1000 else f"{text[:600]} … {text[-300:]}"  # it may quote a text of any length


class Unsupported(MarError, ValueError):
    """A component that cannot serve this grid, plan or request; the message says why and names one that can."""


class InvalidRequest(MarError, ValueError):
    """A name, an option, a text or a file that is wrong."""


class UnknownName(InvalidRequest):
    """A name or an option that does not exist; the message gives the nearest name that does."""

    def __init__(self, what: str, name: str, choices: Iterable[str]) -> None:
        super().__init__(unknown(what, name, choices))


def shortened(text: str, most: int = 80) -> str:
    """Return the text, cut where it is too long for a line."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def unknown(what: str, name: str, choices: Iterable[str]) -> str:
    """Return the message about a name that does not exist, with the nearest name, or all names that may be meant."""
    names, name = sorted(choices), shortened(str(name))
    if not names:
        return f"unknown {what} {name!r}: it has none"
    whole_or_last = (name, name.rpartition(".")[2])  # a key may be written with its section before it
    near = [found for text in whole_or_last for found in difflib.get_close_matches(text, names, n=1, cutoff=0.5)]
    hints = [f"did you mean {near[0]!r}?"] if near else []
    if len(names) <= 12 or not any(difflib.get_close_matches(text, near, cutoff=0.7) for text in whole_or_last):
        hints.append(f"choose from {', '.join(names)}")
    return f"unknown {what} {name!r}: {' '.join(hints)}"


LARGEST = 2**22  # tokens of a grid: the orders of a few images of 2048x2048 tokens take gigabytes


@dataclass(frozen=True)
class Grid:
    """A lattice of ``shape`` tokens, numbered row-major: token l sits at ``coordinates()[l]``.

    With ``time`` the three axes are frames, rows and columns; without, a third axis holds the channels of each pixel.
    """

    shape: tuple[int, ...]
    time: bool = False

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if not 1 <= len(shape) <= 3 or min(shape) < 1:
            raise InvalidRequest(f"a grid has one to three positive sizes, not {'x'.join(map(str, self.shape))!r}")
        if self.time and len(shape) != 3:
            raise InvalidRequest(f"a grid with time has frames, rows and columns, not {'x'.join(map(str, shape))!r}")
        if math.prod(shape) > LARGEST:
            text = "x".join(map(str, shape))
            raise InvalidRequest(f"a grid holds at most {LARGEST:,} tokens: {text} would not fit into memory")
        object.__setattr__(self, "shape", shape)

    @classmethod
    def parse(cls, text: str) -> Grid:
        """``"16x16"`` → Grid((16, 16)); ``"64"`` → Grid((64,)); ``"t4x16x16"`` → Grid((4, 16, 16), time=True)."""
        sizes = text.lower().removeprefix("t")
        try:
            shape = tuple(int(n) for n in sizes.split("x"))
        except ValueError:
            shape = ()
        if not 1 <= len(shape) <= 3 or min(shape) < 1:
            raise InvalidRequest(f"a grid is written like 16x16, 64, 8x8x3 or t4x16x16, not {shortened(text)!r}")
        return cls(shape, sizes != text.lower())

    def __len__(self) -> int:
        return self.size

    @cached_property
    def size(self) -> int:
        """The number of tokens."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return "t" * self.time + "x".join(map(str, self.shape))

    @cached_property
    def frame(self) -> Grid:
        """The grid of one frame; without time all tokens are one frame."""
        return Grid(self.shape[1:]) if self.time else self

    def each_frame(self, rank_BL: torch.Tensor) -> torch.Tensor:
        """Return the ranks (…, L) of all tokens from those of one frame: every frame alike, one after the other."""
        start_T1 = torch.arange(0, len(self), rank_BL.shape[-1], device=rank_BL.device)[:, None]
        return (start_T1 + rank_BL[..., None, :]).flatten(-2)

    @property
    def picture(self) -> tuple[int, ...]:
        """The shape of a picture of all tokens in their order: frames lie one below the other."""
        return (self.shape[0] * self.shape[1], self.shape[2]) if self.time else self.shape

    @cached_property
    def ndim(self) -> int:
        return len(self.shape)

    def coordinates(self) -> torch.Tensor:
        """(L, D) integers: the coordinates of every token, in row-major order."""
        return torch.cartesian_prod(*(torch.arange(n) for n in self.shape)).reshape(len(self), self.ndim)

"""The eight symmetries of a square, applied to any ordering of a grid.

B batch · T frames · H rows · W columns · C channels

Every symmetry is a transposition or none, then a flip of the rows or none, then a flip of the columns or none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from orderings.base import Ordering, Partition, Source, option
from orderings.grid import Grid, InvalidRequest, Unsupported, torch
from orderings.scans import Raster
from orderings.stochastic import Mixture

Flip = Literal["h", "v", "hv"] | None

_SHORTEST: dict[tuple[bool, bool, bool], dict[str, Any]] = {  # (transposed, rows flipped, columns flipped) -> options
    (False, False, False): {},
    (False, True, False): {"flip": "v"},
    (False, False, True): {"flip": "h"},
    (False, True, True): {"rot90": 2},
    (True, False, False): {"transpose": True},
    (True, True, False): {"rot90": 3},
    (True, False, True): {"rot90": 1},
    (True, True, True): {"transpose": True, "rot90": 2},
}


@dataclass(frozen=True)
class Symmetric(Ordering):
    """An ordering whose picture is transposed, then flipped, then turned; written ``raster:flip=h``."""

    of: Ordering = field(default=Raster())
    flip: Flip = None  # h: left and right change places; v: top and bottom
    transpose: bool = False
    rot90: int = option(0, least=0, most=3)  # clockwise quarter turns
    grids: ClassVar[tuple[int, ...]] = (2, 3)
    time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of.learned:
            raise InvalidRequest("flip, transpose and rot90 take an order that is no policy's")
        object.__setattr__(self, "random", self.of.random)
        object.__setattr__(self, "grids", tuple(n for n in self.of.grids if n > 1))

    @property
    def element(self) -> tuple[bool, bool, bool]:
        """(transposed, rows flipped, columns flipped), in this order of application."""
        transposed, rows, columns = self.transpose, "v" in (self.flip or ""), "h" in (self.flip or "")
        for _ in range(self.rot90):  # a turn is a transposition, then a flip of the columns
            transposed, rows, columns = not transposed, columns, not rows
        return transposed, rows, columns

    @property
    def components(self) -> tuple[Ordering, ...]:
        return tuple(turned(one, *self.element) for one in self.of.components)

    def at(self, progress: float) -> Symmetric:
        return replace(self, of=self.of.at(progress))

    def among(self, partition: Partition, grid: Grid) -> Symmetric:
        return replace(self, of=self.of.among(partition, grid))

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        self.check(grid)
        transposed, rows, columns = self.element
        frames, (height, width, *channels) = grid.shape[: grid.time], grid.frame.shape
        shape = (width, height) if transposed else (height, width)
        turned_grid = Grid((*frames, *shape, *channels), grid.time)
        rank_BTHWC = self.of.ranks(turned_grid, batch, generator).reshape(batch, *(frames or (1,)), *shape, -1)
        rank_BTHWC = rank_BTHWC.transpose(2, 3) if transposed else rank_BTHWC
        return rank_BTHWC.flip([axis for axis, flipped in ((2, rows), (3, columns)) if flipped]).reshape(batch, -1)

    def check(self, grid: Grid) -> None:
        if grid.ndim == 1:
            raise Unsupported(f"flip, transpose and rot90 act on the rows and columns of an image, not the 1-D {grid}")
        super().check(grid)


def turned(of: Ordering, transposed: bool, rows: bool, columns: bool) -> Ordering:
    """Return the image of an ordering, of all names of this image the shortest: an ordering has one text."""
    if isinstance(of, Symmetric):
        before, first, second = of.element
        first, second = (second, first) if transposed else (first, second)
        return turned(of.of, transposed != before, rows != first, columns != second)
    options = _SHORTEST[transposed, rows, columns]
    return Symmetric(of, **options) if options else of


@dataclass(frozen=True)
class Symmetries(Ordering):
    """Each image draws one of the eight symmetric images of an order (the eight orders of LMConv, arXiv 2006.12486).

    LMConv's orders are ``symmetries:serpentine``.
    """

    of: Ordering = field(default=Raster())
    random: ClassVar[bool] = True
    time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "grids", self.mixture.orderings[1].grids)

    @property
    def mixture(self) -> Mixture:
        """The mixture of the eight, in LMConv's sequence: as it is, rows flipped, columns, both; then transposed."""
        choices = (False, True)
        return Mixture(
            tuple(turned(self.of, t, rows, columns) for t in choices for columns in choices for rows in choices)
        )

    @property
    def components(self) -> tuple[Ordering, ...]:
        return self.mixture.components

    def at(self, progress: float) -> Symmetries:
        return replace(self, of=self.of.at(progress))

    def among(self, partition: Partition, grid: Grid) -> Symmetries:
        return replace(self, of=self.of.among(partition, grid))

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return self.mixture.ranks(grid, batch, generator)

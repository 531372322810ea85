"""Blocks and frames: any order of them, any order inside them; and random segments.

B batch · L tokens · N blocks · D grid dimensions
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from orderings.base import FixedOrdering, Ordering, Seeded, Source, inverse, option, rank_by, shuffle
from orderings.curves import Hilbert
from orderings.grid import Grid, InvalidRequest, Unsupported, torch
from orderings.scans import Raster


def block_shape(size: tuple[int, ...], grid: Grid) -> tuple[int, ...]:
    """Return the shape of a whole block, from one size for all spatial directions or one for each.

    Channels stay together, frames apart. Raise Unsupported for more sizes than the grid has dimensions.
    """
    spatial = min(grid.ndim, 2)
    if len(size) == 1:
        size = size * spatial
    if len(size) == spatial:
        size = (1, *size) if grid.time else size + grid.shape[spatial:]
    if len(size) != grid.ndim:
        raise Unsupported(f"blocks of {'x'.join(map(str, size))} do not fit the {grid.ndim}-D grid {grid}")
    return tuple(map(min, size, grid.shape))


def block_of(size: tuple[int, ...], grid: Grid) -> tuple[torch.Tensor, Grid]:
    """Return block_L, the number of the block of each token, and the grid of blocks. Edge blocks may be smaller."""
    shape = torch.tensor(block_shape(size, grid))
    blocks = Grid(tuple(-(-n // s) for n, s in zip(grid.shape, shape.tolist(), strict=True)), grid.time)
    strides = torch.tensor([math.prod(blocks.shape[d + 1 :]) for d in range(grid.ndim)])
    return (grid.coordinates() // shape * strides).sum(1), blocks


def check_size(size: tuple[int, ...]) -> None:
    if not 1 <= len(size) <= 3 or min(size) < 1:
        raise InvalidRequest(f"blocks: a size is like 4, 4x2 or 4x4x1, not {'x'.join(map(str, size))!r}")


def region_of(count: tuple[int, ...], grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Return region_L, the region of each token, and inside_L, its place in there, both row-major; channels count last.

    ``count`` regions along each side (or of each side its own), as equal as whole numbers allow.
    """
    spatial = min(grid.ndim, 2)
    count = count * spatial if len(count) == 1 else count
    if len(count) != spatial or any(n > size for n, size in zip(count, grid.shape, strict=False)):
        raise Unsupported(f"{'x'.join(map(str, count))} regions do not fit the {grid.ndim}-D grid {grid}")
    region_L = inside_L = torch.zeros(len(grid), dtype=torch.int64)
    for place_L, size, n in zip(grid.coordinates().unbind(1), grid.shape, (*count, 1), strict=False):
        own_L = place_L * n // size
        region_L = region_L * n + own_L
        inside_L = inside_L * -(-size // n) + place_L + (-own_L * size) // n  # less the region's first place
    return region_L, inside_L


@dataclass(frozen=True)
class Blocks(FixedOrdering):
    """Block by block: ``outer`` orders the blocks, ``inner`` the tokens of each (independently if random).

    Sizes that do not divide the grid leave smaller blocks at the far edges. On a 1-D grid blocks are runs of tokens; on
    a 3-D grid they hold all channels of their pixels, unless a third size cuts those too; with time ``4`` cuts each
    frame, and ``2x4x4`` makes space-time blocks of two frames.
    """

    whole: ClassVar[bool] = True
    size: tuple[int, ...] = option((4,), separator="x")
    outer: Ordering = field(default=Raster())
    inner: Ordering = field(default=Raster())
    test_options: ClassVar[dict[str, Any]] = {"size": (2,)}

    def __post_init__(self) -> None:
        check_size(self.size)
        object.__setattr__(self, "random", self.outer.random or self.inner.random)

    def at(self, progress: float) -> Blocks:
        return replace(self, outer=self.outer.at(progress), inner=self.inner.at(progress))

    def rank(self, grid: Grid) -> torch.Tensor:
        return self._sample(grid, 1, Seeded(1))[0]

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return self._sample(grid, batch, generator) if self.random else super().ranks(grid, batch, generator)

    def _sample(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        block_L, blocks = block_of(self.size, grid)
        outer_BN = self.outer.ranks(blocks, batch, generator.at("outer"))
        size_N = torch.bincount(block_L, minlength=len(blocks)).to(outer_BN.device)
        size_by_rank_BN = size_N[inverse(outer_BN)]
        start_BN = (size_by_rank_BN.cumsum(1) - size_by_rank_BN).gather(1, outer_BN)
        return start_BN[:, block_L.to(start_BN.device)] + self._inside(block_L, blocks, grid, batch, generator)

    def _inside(self, block_L: torch.Tensor, blocks: Grid, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        """Return the rank of every token inside its own block. Blocks of one shape are sampled together."""
        shape_D = torch.tensor(block_shape(self.size, grid))
        extent_ND = torch.minimum(shape_D, torch.tensor(grid.shape) - blocks.coordinates() * shape_D)
        token_by_block = torch.argsort(block_L, stable=True)  # row-major inside each block, as its own grid is
        start_N = torch.bincount(block_L, minlength=len(blocks)).cumsum(0) - extent_ND.prod(1)
        inside_BL = torch.empty(batch, len(grid), dtype=torch.int64)
        for extent_D in extent_ND.unique(dim=0):
            alike = (extent_ND == extent_D).all(1).nonzero()[:, 0]
            block = Grid(tuple(extent_D.tolist()), grid.time)
            block = block.frame if block.shape[0] == 1 else block
            source = _Folded(generator.at(f"inner {block}"), len(alike))
            rank = self.inner.ranks(block, batch * len(alike), source)
            tokens = token_by_block[start_N[alike, None] + torch.arange(len(block))]
            inside_BL = inside_BL.to(rank.device)
            inside_BL[:, tokens.reshape(-1).to(rank.device)] = rank.reshape(batch, -1)
        return inside_BL


@dataclass(frozen=True)
class Frames(Ordering):
    """Frame by frame: ``inner`` orders the tokens of each (independently if random), ``outer`` the frames.

    ``outer=subsample`` interleaves: frames 0, 2, 1, 3 of four, coarse to fine. A picture is one frame.
    """

    inner: Ordering = field(default=Raster())
    outer: Ordering = field(default=Raster())
    time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", self.inner.random or self.outer.random)

    def at(self, progress: float) -> Frames:
        return replace(self, inner=self.inner.at(progress), outer=self.outer.at(progress))

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        frames = len(grid) // len(grid.frame)
        source = _Folded(generator.at("inner"), frames)
        inside_BTL = self.inner.ranks(grid.frame, batch * frames, source).reshape(batch, frames, -1)
        frame_BT = self.outer.ranks(Grid((frames,)), batch, generator.at("outer")).to(inside_BTL.device)
        return (frame_BT[:, :, None] * len(grid.frame) + inside_BTL).flatten(1)


@dataclass(frozen=True)
class Regions(FixedOrdering):
    """One token of each region, then the next one of each (PAR, arXiv 2412.15119).

    Regions in raster order, tokens in raster order inside them; ``regions:2/regions:2`` and ``regions:4/regions:4``
    are PAR's, with 4 and 16 regions.
    """

    count: tuple[int, ...] = option((2,), separator="x")  # regions along each side
    test_options: ClassVar[dict[str, Any]] = {"count": (1,)}

    def __post_init__(self) -> None:
        check_size(self.count)

    def rank(self, grid: Grid) -> torch.Tensor:
        region_L, inside_L = region_of(self.count, grid)
        return rank_by(inside_L, region_L)


@dataclass(frozen=True)
class _Folded:
    """A source of ``batch * fold`` rows made of one of ``batch`` rows: each row's stream serves ``fold`` blocks."""

    source: Source
    fold: int

    def uniform(self, n: int) -> torch.Tensor:
        return self.source.uniform(self.fold * n).reshape(-1, n)

    def at(self, purpose: str) -> _Folded:
        return _Folded(self.source.at(purpose), self.fold)


@dataclass(frozen=True)
class Segments(Ordering):
    """Random runs of a curve, in random order (RandSAC, arXiv 2203.12054).

    A curve through all tokens, turned by a random amount, is cut into runs of ``size`` tokens: on a Hilbert curve
    connected blobs (the one that holds both ends of the curve excepted). A shorter run, left where ``size`` does not
    divide the tokens, comes last, so that the partition ``equal:size`` makes one set of every segment. The blocks
    variant is ``blocks:4:outer=random/blocks:4``.
    """

    size: int = option(4, least=1)  # tokens
    along: Ordering | None = None  # a fixed order; none: Hilbert, or raster on a 1-D grid
    random: ClassVar[bool] = True
    time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.along is not None and self.along.random:
            raise InvalidRequest("segments: along takes a fixed order, such as hilbert, serpentine or raster")

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        along = self.along or (Raster() if grid.ndim == 1 else Hilbert())
        length = len(grid)
        curve_BL = along.ranks(grid, batch, generator)
        turn_B1 = (generator.at("turn").uniform(1) * length).long().clamp(max=length - 1)
        turned_BL = (curve_BL.to(turn_B1.device) + turn_B1) % length
        whole = length // self.size
        if whole == 0:
            return turned_BL
        run_rank_BN = shuffle(generator.at("runs").uniform(whole))
        last_B1 = torch.full_like(turn_B1, whole)
        rank_of_run_BN = torch.cat([run_rank_BN, last_B1], dim=1)
        return rank_of_run_BN.gather(1, turned_BL // self.size) * self.size + turned_BL % self.size

"""The contracts of orderings and partitions, and the conversion of sort keys and visiting sequences to ranks.

B batch · L tokens · K AR steps

An ordering ranks the tokens; a partition cuts the sequence of ranks into sets. Both are frozen dataclasses whose fields
are options with defaults, so ``ORDERINGS[name]()`` works. ``name:value`` on the command line sets the first field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar, Protocol

from orderings.grid import Grid, InvalidRequest, Unsupported, torch

GIVEN = -1  # known from the start: conditioned on, never scored
ABSENT = 2**30  # padding: never a key, a query or a target


def rank_by(*keys_L: torch.Tensor) -> torch.Tensor:
    """Return rank_L of the tokens sorted by the first key, ties by the next keys, then by token number."""
    order_L = torch.arange(len(keys_L[0]))
    for key_L in reversed(keys_L):  # stable sorts, least significant key first
        order_L = order_L[torch.argsort(key_L[order_L], stable=True)]
    return inverse(order_L)


def argsort_whole(key_BL: torch.Tensor) -> torch.Tensor:
    """Return the stable argsort of whole numbers 0..2³¹-1 along the last axis, the same on every device.

    Key and place are packed into one integer; NumPy sorts these values about 20 times faster than torch.argsort.
    """
    packed_BL = key_BL << 32 | torch.arange(key_BL.shape[-1], device=key_BL.device)
    if packed_BL.is_cuda:
        packed_BL = packed_BL.sort(dim=-1).values
    else:
        packed_BL.numpy().sort(axis=-1)
    return packed_BL & 0xFFFFFFFF


def shuffle(uniform_BL: torch.Tensor) -> torch.Tensor:
    """Return a uniformly random permutation (int64) for each row of float32 uniforms in [0, 1) of 24 bits each."""
    return argsort_whole((uniform_BL * 2.0**24).long())


def inverse(permutation_L: torch.Tensor) -> torch.Tensor:
    """Return the inverse permutation along the last axis: positions in visiting order to ranks, and back."""
    index_L = torch.arange(permutation_L.shape[-1], device=permutation_L.device).expand_as(permutation_L)
    return torch.empty_like(permutation_L).scatter_(-1, permutation_L, index_L)


class Source(Protocol):
    """A source of random numbers: ``mar.core.noise.Noise``, or ``Seeded`` for use without mar."""

    def uniform(self, n: int) -> torch.Tensor:
        """Return (B, n) float32 uniforms in [0, 1); row b is a function of its own key."""
        ...

    def at(self, purpose: str) -> Source:
        """Return independent streams of the same rows, for an ordering that samples more than once."""
        ...


@dataclass
class Seeded:
    """A ``Source`` over a ``torch.Generator``, for use without mar."""

    batch: int
    generator: torch.Generator | None = None

    def uniform(self, n: int) -> torch.Tensor:
        return torch.rand(self.batch, n, generator=self.generator)

    def at(self, purpose: str) -> Seeded:
        return self  # every call of ``uniform`` is independent


def option(default: Any, **metadata: Any) -> Any:
    """Return a field with a default.

    ``least`` and ``most`` bound numbers; ``words``, ``separator``: see ``text``; ``omitted``: recipes leave the default
    out, so that an option that came later moves no fingerprint.
    """
    return field(default=default, metadata=metadata)


class _FirstLine:
    """The first line of a class's docstring."""

    def __get__(self, instance: object, owner: type) -> str:
        return (owner.__doc__ or "").split("\n")[0].rstrip(".").replace("``", "")


class Component:
    """The base of orderings, partitions and adaptive rules: dataclasses of options."""

    test_options: ClassVar[dict[str, Any]] = {}  # options for a handful of tokens, where the defaults are too large
    summary: ClassVar[str] = _FirstLine()  # pyright: ignore[reportAssignmentType] - for ``mar orderings list``

    def __post_init__(self) -> None:
        """Raise InvalidRequest if an option is below its ``least`` or above its ``most``."""
        for own in fields(self):  # pyright: ignore[reportArgumentType] - every subclass is a dataclass
            value, least, most = getattr(self, own.name), own.metadata.get("least"), own.metadata.get("most", math.inf)
            for number in value if isinstance(value, tuple) else (value,):
                if least is not None and number is not None and not least <= number <= most:
                    allowed = f"at least {least}" if most == math.inf else f"in {least}..{most}"
                    raise InvalidRequest(f"{type(self).__name__.lower()}: {own.name} is {allowed}, not {number}")


@dataclass(frozen=True)
class Ordering(Component):
    """The order in which tokens are generated."""

    random: ClassVar[bool] = False  # True if ``ranks`` uses the generator (composites set it per instance)
    learned: ClassVar[bool] = False  # True when a policy trained with the model chooses the order
    grids: ClassVar[tuple[int, ...]] = (1, 2, 3)  # the numbers of dimensions it is defined on, of a frame with time
    time: ClassVar[bool] = False  # True if ``ranks`` knows that the first axis of a grid with time is no row

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        """Return rank_BL (int64): each row a permutation of 0..L-1; rank 0 is generated first.

        Raise Unsupported if the ordering is not defined on ``grid``; the message says where it is.
        """
        raise NotImplementedError

    def check(self, grid: Grid) -> None:
        """Raise Unsupported if this ordering is not defined on ``grid``."""
        name = type(self).__name__
        if grid.frame.ndim not in self.grids:
            fits = " or ".join(f"{n}-D" for n in self.grids)
            raise Unsupported(f"{name} orders a {fits} grid, not the {grid.ndim}-D {grid}")
        if grid.time and not self.time:
            raise Unsupported(f"{name} does not know time and would mix frames with rows: frames:(…) orders each frame")

    def at(self, progress: float) -> Ordering:
        """Return the ordering at a fraction 0..1 of training; only annealed orderings change."""
        return self

    def among(self, partition: Partition, grid: Grid) -> Ordering:
        """Return the ordering for the sets of a partition; only an ordering that heeds set sizes changes."""
        return self

    @property
    def components(self) -> tuple[Ordering, ...]:
        """The fixed orders of which every image draws one, all equally likely; empty of all but such mixtures.

        An ensemble over exactly these has the likelihood of the mixture (``Plans.orders``).
        """
        return ()


@dataclass(frozen=True)
class FixedOrdering(Ordering):
    """An ordering with the same ranks in every row: implement ``rank``. With time it orders every frame alike."""

    time: ClassVar[bool] = True
    whole: ClassVar[bool] = False  # True if ``rank`` takes a grid with time, all frames at once

    def rank(self, grid: Grid) -> torch.Tensor:
        """Return rank_L (int64), a permutation of 0..L-1; it is computed once for each grid."""
        raise NotImplementedError

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        self.check(grid)
        rank_L = _rank(self, grid) if self.whole else grid.each_frame(_rank(self, grid.frame))
        return rank_L.repeat(batch, 1)  # a copy: writing into it leaves the cache intact


@lru_cache(maxsize=256)
def _rank(ordering: FixedOrdering, grid: Grid) -> torch.Tensor:
    return ordering.rank(grid)


@dataclass(frozen=True)
class PixelOrdering(FixedOrdering):
    """A fixed order of pixels (or, on a 1-D grid, of tokens): implement ``pixels``.

    On a 3-D grid H×W×C the C channels of a pixel come consecutively, in their own order.
    """

    grids: ClassVar[tuple[int, ...]] = (2, 3)

    def pixels(self, plane: Grid) -> torch.Tensor:
        """Return rank (int64, one per pixel of the 1-D or 2-D ``plane``), a permutation."""
        raise NotImplementedError

    def rank(self, grid: Grid) -> torch.Tensor:
        pixel_rank = self.pixels(Grid(grid.shape[:2]))
        if grid.ndim < 3:
            return pixel_rank
        channels = grid.shape[2]
        return (pixel_rank[:, None] * channels + torch.arange(channels)).reshape(-1)


@dataclass(frozen=True)
class Partition(Component):
    """A cut of the sequence of ranks into sets: implement ``sizes``, or ``steps`` if it depends on the tokens."""

    def sizes(self, n: int) -> torch.Tensor:
        """Return the set sizes for ``n`` tokens to generate: (K,) int64, each at least 1, summing to ``n``.

        Raise Unsupported if ``n`` tokens cannot be cut this way.
        """
        raise NotImplementedError

    def steps(self, rank_BL: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return step_BL (int64): non-decreasing in rank, no empty step before a row's last.

        ``rank_BL`` may hold GIVEN and ABSENT entries, which pass through; the others are 0..n-1 in each row.
        """
        scored_BL = (rank_BL > GIVEN) & (rank_BL < ABSENT)
        n_B = scored_BL.sum(1)
        step_BL = rank_BL
        for n in set(n_B.tolist()) - {0}:  # few values: one per number of tokens to generate
            sizes_K = self.sizes(n).to(rank_BL.device)
            step_of_rank = torch.arange(len(sizes_K), device=rank_BL.device).repeat_interleave(sizes_K)
            here_BL = scored_BL & (n_B == n)[:, None]
            step_BL = torch.where(here_BL, step_of_rank[rank_BL.clamp(0, n - 1)], step_BL)
        return step_BL

"""Every registered ordering and partition, by default and with options, and grids of all kinds."""

from __future__ import annotations

import torch

from mar.core.noise import Noise, stream
from orderings import ORDERINGS, PARTITIONS, Grid, Ordering, Partition, Plan, Unsupported, parse_ordering

GRIDS = [
    Grid(shape)
    for shape in ((1,), (2,), (7,), (16,), (1, 1), (1, 5), (6, 1), (4, 4), (3, 5), (6, 4), (9, 8), (1, 1, 3), (4, 5, 2))
] + [Grid((2, 3, 4), time=True), Grid((3, 2, 2), time=True)]

WITH_OPTIONS = (
    *("serpentine:vertical", "diagonal:zigzag", "spiral:outward", "spiral:clockwise=false", "spiral:corner=top-right"),
    *("spiral:outward:corner=bottom-left:clockwise=false", "spiral:around=corner", "spiral:outward:around=corner"),
    *("subsample:1", "halton:fixed", "blocks:3", "blocks:2x3", "blocks:2:outer=random:inner=random", "blocks:1"),
    *("blocks:3:outer=(blocks:2):inner=halton", "segments:1", "segments:3:along=reverse", "segments:100"),
    *("mixture:raster+random+halton:weights=1,2,0", "annealed:reverse:progress=0.6", "fixed-random:7"),
    *("annealed:(mixture:raster+reverse)", "spiral:outward:rot90=1", "halton:transpose=true", "symmetries:hilbert"),
    *("locality:1", "locality:0:proximity=1.5"),
    *("checkerboard:random", "checkerboard:(spiral:outward)", "regions:1", "regions:2x3"),
    *("frames:spiral:outer=subsample", "frames:halton:outer=random", "column:rot90=1"),
)

PARTITION_TEXTS = (
    *("equal:1", "equal:3", "equal:1000", "cosine:1", "cosine:3", "linear:3", "power:3:exponent=0.3", "arccos:3"),
    *("blocks:2", "blocks:3", "sizes", "log:3", "exp:3", "randar:3", "lpd:3", "two-stage:2", "regions:1"),
    *("regions:2:start=parallel", "regions:2x3"),
)


def orderings() -> dict[str, Ordering]:
    """All but ``file``, which needs a file."""
    plain = {name: cls() for name, cls in ORDERINGS.items() if name != "file"}
    return {**plain, **{text: parse_ordering(text) for text in WITH_OPTIONS}}


def partitions() -> dict[str, Partition]:
    """All but ``optimal``, which needs a file."""
    from orderings import parse_partition

    plain = {name: cls() for name, cls in PARTITIONS.items() if name != "optimal"}
    return {**plain, **{text: parse_partition(text) for text in PARTITION_TEXTS}}


def noise(batch: int, seed: int = 0) -> Noise:
    return stream(seed, "test", batch)


def plan_or_none(ordering: Ordering, partition: Partition, grid: Grid, batch: int = 3, **tokens) -> Plan | None:
    """A plan, or None where the ordering or the partition refuses the grid with a message of one line."""
    try:
        return Plan.sample(ordering, partition, grid, batch, noise(batch), **tokens)
    except Unsupported as error:
        assert str(error) and "\n" not in str(error)
        return None


def ranks(text: str, *shape: int) -> list:
    """The ranks of a fixed ordering as nested lists, in the grid's layout."""
    return parse_ordering(text).ranks(Grid(shape), 1, noise(1))[0].reshape(shape).tolist()


def path(rank_L: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(L, D): the coordinates in the order they are visited."""
    return grid.coordinates()[rank_L.argsort()]

"""Contract tests of an ordering and of a partition.

B batch · L tokens · K AR steps
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mar.core.errors import Unsupported
from mar.core.noise import Noise, stream
from mar.verification.cases import random_plan
from mar.verification.verdict import Verdict, claim, require
from orderings import ABSENT, GIVEN, Grid, Ordering, Partition

_SHAPES = "1 2 7 16 1x1 7x1 1x5 2x3 4x4 3x5 8x8 5x12 2x2x2 3x4x2 4x4x3 t3x2x4"
GRIDS = tuple(Grid.parse(shape) for shape in _SHAPES.split())
_BATCH = 6


def verify_ordering(ordering: Ordering, subject: str) -> list[Verdict]:
    """Test every claim of the ``Ordering`` contract."""
    checks = (is_permutation, is_seeded, rows_are_independent, stays_an_ordering, is_a_value)
    return [check(subject, ordering) for check in checks]


def verify_partition(partition: Partition, subject: str) -> list[Verdict]:
    """Test every claim of the ``Partition`` contract."""
    checks = (covers, sizes_add_up, passes_marks_through, depends_on_one_row, is_a_value)
    return [check(subject, partition) for check in checks]


def _source(seed: int, batch: int = _BATCH) -> Noise:
    return stream(seed, "verify/ordering", batch)


def _ranks(ordering: Ordering, seed: int = 0, least: int = 1) -> list[tuple[Grid, Tensor]]:
    """rank_BL on every grid of at least ``least`` tokens that the ordering serves."""
    ranks, refusal = [], ""
    for grid in GRIDS:
        try:
            ranks.append((grid, ordering.ranks(grid, _BATCH, _source(seed))))
        except Unsupported as unsupported:
            refusal = str(unsupported)
    require(len(ranks) > 0, f"serves none of the grids {_SHAPES}: {refusal}")
    return [(grid, rank_BL) for grid, rank_BL in ranks if len(grid) >= least]


@claim("every row is a permutation of 0..L-1")
def is_permutation(ordering: Ordering) -> str:
    ranks = _ranks(ordering)
    for grid, rank_BL in ranks:
        _require_permutation(rank_BL, grid)
    return f"on {len(ranks)} grids"


def _require_permutation(rank_BL: Tensor, grid: Grid) -> None:
    want = (_BATCH, len(grid))
    require(rank_BL.dtype == torch.int64, f"on {grid} the ranks are {rank_BL.dtype}, not int64")
    require(tuple(rank_BL.shape) == want, f"on {grid} the ranks have shape {tuple(rank_BL.shape)}, not {want}")
    wrong = (rank_BL.sort(1).values != torch.arange(len(grid))).any(1).nonzero()
    require(len(wrong) == 0, f"on {grid} a row is no permutation: {rank_BL[wrong[:1, 0]].tolist()}")


@claim("the order is a function of the seed, and random exactly when it says so")
def is_seeded(ordering: Ordering) -> str:
    first, again, other = (_ranks(ordering, seed, least=7) for seed in (0, 0, 1))
    for (grid, a_BL), (_, b_BL), (_, c_BL) in zip(first, again, other, strict=True):
        require(torch.equal(a_BL, b_BL), f"on {grid} the same seed gave two orders")
        if not ordering.random:
            require(torch.equal(a_BL, c_BL), f"on {grid} another seed changed the order, though random is False")
            require(bool((a_BL == a_BL[:1]).all()), f"on {grid} rows differ, though random is False")
    changed = [not torch.equal(a_BL, c_BL) for (_, a_BL), (_, c_BL) in zip(first, other, strict=True)]
    require(not ordering.random or any(changed), "another seed never changed the order, though random is True")
    return "random" if ordering.random else "fixed"


@claim("a row does not depend on its neighbours")
def rows_are_independent(ordering: Ordering) -> str:
    ranks = _ranks(ordering)
    source = _source(0)
    for grid, rank_BL in ranks:
        for row in range(_BATCH):
            alone_1L = ordering.ranks(grid, 1, source.rows(slice(row, row + 1)))
            require(torch.equal(alone_1L[0], rank_BL[row]), f"on {grid} row {row} alone has another order")
    return f"{_BATCH} rows one by one on {len(ranks)} grids"


@claim("at any point of training it is an ordering")
def stays_an_ordering(ordering: Ordering) -> str:
    for progress in (0.0, 0.3, 0.5, 1.0):
        for grid, rank_BL in _ranks(ordering.at(progress)):
            _require_permutation(rank_BL, grid)
    return "at 0, 0.3, 0.5 and 1"


@claim("it is a frozen value")
def is_a_value(part: Ordering | Partition) -> str:
    cls = type(part)
    params = getattr(cls, "__dataclass_params__", None)
    require(params is not None and params.frozen, f"{cls.__name__} is not a frozen dataclass")
    require(dataclasses.replace(part) == part, "a copy with the same options is not equal")
    return "a frozen dataclass"


_COUNTS = (*range(1, 34), 64, 100, 256)


@claim("set sizes are positive and sum to the number of tokens")
def sizes_add_up(partition: Partition) -> str:
    served = 0
    if type(partition).sizes is Partition.sizes:
        return "it has no sizes: its sets depend on the tokens"
    for n in _COUNTS:
        try:
            sizes_K = partition.sizes(n)
        except Unsupported:
            continue
        served += 1
        require(sizes_K.dtype == torch.int64 and sizes_K.ndim == 1, f"sizes of {n} tokens: {sizes_K}")
        require(bool((sizes_K >= 1).all()), f"{n} tokens are cut into an empty set: {sizes_K.tolist()}")
        require(int(sizes_K.sum()) == n, f"the sets of {n} tokens hold {int(sizes_K.sum())}: {sizes_K.tolist()}")
    require(served > 0, f"cuts none of {_COUNTS} tokens")
    return f"for {served} numbers of tokens"


@claim("steps cover the tokens, never fall with rank, and none is empty")
def covers(partition: Partition) -> str:
    plans = _steps(partition)
    for grid, rank_BL, step_BL in plans:
        require(step_BL.dtype == torch.int64 and step_BL.shape == rank_BL.shape, f"on {grid}: not int64 of (B, L)")
        for rank_L, step_L in zip(rank_BL, step_BL, strict=True):
            scored_L = (rank_L > GIVEN) & (rank_L < ABSENT)
            ordered = step_L[scored_L][rank_L[scored_L].argsort()].tolist()
            for before, after in zip([GIVEN, *ordered], ordered, strict=False):
                fell = "falls with rank" if after < before else "leaves a step empty"
                starts = before == GIVEN and after == 0
                require(starts or (before >= 0 and before <= after <= before + 1), f"on {grid} {ordered} {fell}")
    return f"{len(plans)} plans, with given and absent tokens"


@claim("given and absent tokens pass through")
def passes_marks_through(partition: Partition) -> str:
    plans = _steps(partition)
    for grid, rank_BL, step_BL in plans:
        for mark, name in ((GIVEN, "given"), (ABSENT, "absent")):
            require(torch.equal(rank_BL == mark, step_BL == mark), f"on {grid} a token became or ceased to be {name}")
    return f"{len(plans)} plans"


@claim("the sets of a row do not depend on its neighbours")
def depends_on_one_row(partition: Partition) -> str:
    plans = _steps(partition)
    for grid, rank_BL, step_BL in plans:
        for row in range(len(rank_BL)):
            alone_1L = partition.steps(rank_BL[row : row + 1], grid)
            require(torch.equal(alone_1L[0], step_BL[row]), f"on {grid} row {row} alone is cut differently")
    return f"{len(plans)} plans, row by row"


def _steps(partition: Partition) -> list[tuple[Grid, Tensor, Tensor]]:
    """(grid, rank_BL, step_BL) of random orders with and without given and absent tokens, where served."""
    steps, refusal = [], ""
    for grid in GRIDS:
        for marks in (False, True):
            rank_BL = random_plan(len(grid), _BATCH, seed=len(grid), given=marks, absent=marks).rank_BL
            kept_BL = rank_BL.clone()
            try:
                step_BL = partition.steps(rank_BL, grid)
            except Unsupported as unsupported:
                refusal = str(unsupported)
                continue
            require(torch.equal(kept_BL, rank_BL), f"on {grid} it wrote into the ranks it was given")
            steps.append((grid, rank_BL, step_BL))
    require(len(steps) > 0, f"serves none of the grids {_SHAPES}: {refusal}")
    return steps

"""Properties of every registered ordering, over grids of one, two and three dimensions."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from orderings import (
    ORDERINGS,
    PARTITIONS,
    FixedOrdering,
    Grid,
    Ordering,
    Plan,
    PlanSpec,
    Seeded,
    Unsupported,
)
from orderings.partitions import Singles
from tests.orderings import cases

ALL = cases.orderings()
named = pytest.mark.parametrize("ordering", ALL.values(), ids=ALL.keys())


def draw(ordering: Ordering, grid: Grid, batch: int = 4, seed: int = 0) -> torch.Tensor | None:
    try:
        return ordering.ranks(grid, batch, cases.noise(batch, seed))
    except Unsupported:
        assert grid.ndim not in ordering.grids or _composite(ordering)
        return None


def _composite(ordering: Ordering) -> bool:
    return any(isinstance(getattr(ordering, f.name), Ordering | tuple) for f in dataclasses.fields(ordering))


@named
def test_every_row_is_a_permutation(ordering):
    served = 0
    for grid in cases.GRIDS:
        rank_BL = draw(ordering, grid)
        if rank_BL is not None:
            served += 1
            assert rank_BL.dtype == torch.int64 and rank_BL.shape == (4, len(grid))
            assert torch.equal(rank_BL.sort(1).values, torch.arange(len(grid)).expand(4, -1))
    assert served >= 5


@named
def test_declared_grids_are_served_and_others_refused(ordering):
    for grid in cases.GRIDS:
        if grid.ndim not in ordering.grids:
            with pytest.raises(Unsupported, match=f"not the {grid.ndim}-D {grid}"):
                ordering.ranks(grid, 1, cases.noise(1))
        elif not _composite(ordering):
            ordering.ranks(grid, 1, cases.noise(1))


@named
def test_drawing_a_batch_equals_drawing_its_rows_one_by_one(ordering):
    for grid in cases.GRIDS:
        rank_BL = draw(ordering, grid, batch=5)
        if rank_BL is not None:
            whole = cases.noise(5)
            for row in range(5):
                alone = ordering.ranks(grid, 1, whole.rows(slice(row, row + 1)))
                assert torch.equal(alone[0], rank_BL[row])


@named
def test_the_seed_decides_and_nothing_else(ordering):
    grid = Grid((6, 5))
    torch.manual_seed(1)
    first = ordering.ranks(grid, 8, cases.noise(8))
    torch.manual_seed(2)
    assert torch.equal(first, ordering.ranks(grid, 8, cases.noise(8)))
    other = ordering.ranks(grid, 8, cases.noise(8, seed=1))
    assert ordering.random != torch.equal(first, other)
    assert ordering.random != bool((first == first[0]).all())


@named
def test_it_draws_from_a_torch_generator_too(ordering):
    grid = Grid((4, 4))
    rank_BL, again_BL = (ordering.ranks(grid, 3, Seeded(3, torch.Generator().manual_seed(5))) for _ in range(2))
    assert torch.equal(rank_BL, again_BL)


@named
def test_writing_into_a_drawn_plan_changes_no_later_one(ordering):
    grid = Grid((4, 4))
    rank_BL = ordering.ranks(grid, 1, cases.noise(1))
    kept = rank_BL.clone()
    rank_BL.zero_()
    assert torch.equal(ordering.ranks(grid, 1, cases.noise(1)), kept)


@pytest.mark.parametrize("name", ORDERINGS)
def test_defaults_construct_and_say_what_they_do(name):
    ordering = ORDERINGS[name]()
    assert ordering.summary and hash(ordering) == hash(ORDERINGS[name]())
    assert ordering.at(0.3).at(1.0) == ordering


def test_given_and_absent_tokens_keep_the_relative_order_of_the_others():
    grid = Grid((4, 5))
    given_BL = torch.zeros(3, 20, dtype=torch.bool)
    absent_BL = torch.zeros(3, 20, dtype=torch.bool)
    given_BL[0, ::3], given_BL[1, :7], absent_BL[1, 18:], absent_BL[2] = True, True, True, True
    for ordering in ALL.values():
        whole_BL = ordering.ranks(grid, 3, cases.noise(3))
        plan = Plan.sample(ordering, Singles(), grid, 3, cases.noise(3), given_BL, absent_BL)
        for row in range(3):
            left = ~(given_BL | absent_BL)[row]
            assert torch.equal(plan.rank_BL[row, left].argsort(), whole_BL[row, left].argsort())
            assert plan.step_BL[row, left].sort().values.tolist() == list(range(int(left.sum())))


def test_fixed_orders_are_computed_once_for_a_grid():
    calls = []

    @dataclasses.dataclass(frozen=True)
    class Counted(FixedOrdering):
        def rank(self, grid):
            calls.append(grid)
            return torch.arange(len(grid))

    for _ in range(3):
        Counted().ranks(Grid((3, 3)), 2, Seeded(2))
        Counted().ranks(Grid((9,)), 2, Seeded(2))
    assert len(calls) == 2


def test_channels_of_a_pixel_come_consecutively_in_every_scan_of_pixels():
    for name in ("raster", "column", "serpentine", "diagonal", "spiral", "hilbert", "morton", "subsample"):
        pixels = torch.tensor(cases.ranks(name, 4, 5))
        assert cases.ranks(name, 4, 5, 3) == (pixels[..., None] * 3 + torch.arange(3)).tolist()


def test_all_default_plans_are_valid_on_an_image_grid():
    grid = Grid((8, 8))
    for ordering in ORDERINGS:
        for partition in PARTITIONS:
            if ordering != "file" and partition != "optimal":
                plan = Plan.sample(*PlanSpec.parse(f"{ordering}/{partition}"), grid, 2, cases.noise(2))
                assert plan.sizes().sum(1).tolist() == [64, 64]

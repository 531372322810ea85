"""Grids with a time axis: by hand, which token comes when, and which order is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from orderings import Grid, Ordering, Plan, PlanSpec, Unsupported
from orderings.draw import Canvas
from orderings.scans import Raster
from tests.orderings import cases

CUBE = Grid.parse("t2x2x2")


def plan(text, grid, batch=1):
    return Plan.sample(*PlanSpec.parse(text), grid, batch, cases.noise(batch))


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("raster", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("column", [0, 2, 1, 3, 4, 6, 5, 7]),
        ("reverse", [3, 2, 1, 0, 7, 6, 5, 4]),
        ("spiral", [0, 1, 3, 2, 4, 5, 7, 6]),
        ("checkerboard", [0, 2, 3, 1, 4, 6, 7, 5]),
        ("raster:flip=h", [1, 0, 3, 2, 5, 4, 7, 6]),
        ("frames:column:outer=reverse", [4, 6, 5, 7, 0, 2, 1, 3]),
        ("blocks:2x1x1", [0, 2, 4, 6, 1, 3, 5, 7]),  # space-time blocks: a pixel in both frames, then the next pixel
        ("blocks:1:inner=spiral", [0, 1, 2, 3, 4, 5, 6, 7]),  # spatial sizes cut each frame
        ("blocks:2:inner=spiral", [0, 1, 3, 2, 4, 5, 7, 6]),
    ],
)
def test_orders_of_two_frames_of_2x2_are_these(text, ranks):
    assert plan(text, CUBE).rank_BL[0].tolist() == ranks


def test_space_time_blocks_follow_each_other_in_random_order_and_random_inside():
    rank_BL = plan("blocks:2x2x2:outer=random:inner=random", Grid.parse("t4x3x4"), 5).rank_BL
    assert torch.equal(rank_BL.sort(1).values, torch.arange(48).expand(5, -1))
    block_BL = rank_BL.reshape(5, 4, 3, 4)[:, :2, :2, :2].flatten(1)  # the first block, of eight tokens
    assert (block_BL.amax(1) - block_BL.amin(1)).tolist() == [7] * 5 and len(block_BL.unique(dim=0)) == 5


def test_interleaved_frames_come_coarse_to_fine():
    for text, four in (("subsample", [0, 2, 1, 3]), ("(subsample:1)", [0, 2, 1, 3]), ("reverse", [3, 2, 1, 0])):
        rank_TP = plan(f"frames:spiral:outer={text}", Grid.parse("t4x2x2")).rank_BL.reshape(4, 4)
        assert (rank_TP // 4)[:, 0].tolist() == four
        assert (rank_TP % 4).tolist() == [[0, 1, 3, 2]] * 4
    eight = plan("frames:outer=subsample", Grid((8, 1, 1), time=True)).rank_BL[0]
    assert eight.argsort().tolist() == [0, 4, 2, 6, 1, 5, 3, 7]


def test_random_orders_differ_between_frames_only_under_frames():
    grid = Grid.parse("t4x4x4")
    own_BTP, shared_BTP = (
        (plan(text, grid, 3).rank_BL % 16).reshape(3, 4, 16) for text in ("frames:(checkerboard:random)", "halton")
    )
    assert not torch.equal(own_BTP[:, 0], own_BTP[:, 1]) and torch.equal(shared_BTP[:, 0], shared_BTP[:, 1])
    assert bool((plan("random", grid, 50).rank_BL[:, :16] >= 16).any())  # over all frames at once


def test_sets_follow_frames_and_never_cross_them():
    assert plan("frames:random:outer=reverse/frames", CUBE).step_BL[0].tolist() == [1] * 4 + [0] * 4
    assert plan("diagonal/diagonals", CUBE).step_BL[0].tolist() == [0, 1, 1, 2, 3, 4, 4, 5]
    assert plan("blocks:1x2x1/blocks:1x2x1", CUBE).step_BL[0].tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    step_TP = plan("regions:2/regions:2:start=parallel", Grid.parse("t3x4x4")).step_BL.reshape(3, 16)
    assert [sorted(set(row.tolist())) for row in step_TP] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_channels_and_time_are_told_apart():
    assert Grid.parse("t2x2x2") != Grid.parse("2x2x2") and str(CUBE) == "t2x2x2"
    assert plan("column", Grid((2, 2, 2))).rank_BL[0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert (Canvas.of(CUBE).height, Canvas.of(CUBE).width) == (2, 5)  # frames side by side
    assert Canvas.of(CUBE).row_L.tolist() == [0, 0, 1, 1] * 2
    with pytest.raises(ValueError, match="frames, rows and columns, not '4x4'"):
        Grid((4, 4), time=True)


def test_an_order_that_does_not_know_time_is_refused_and_served_in_each_frame():
    @dataclass(frozen=True)
    class Mine(Ordering):
        def ranks(self, grid, batch, generator):
            return torch.arange(len(grid)).expand(batch, -1).flip(1)

    with pytest.raises(Unsupported, match="Mine does not know time and would mix frames with rows: frames:"):
        Plan.sample(Mine(), PlanSpec.parse("raster").partition, CUBE, 1, cases.noise(1))
    from orderings.blocks import Frames

    assert Frames(Mine(), Raster()).ranks(CUBE, 1, cases.noise(1))[0].tolist() == [3, 2, 1, 0, 7, 6, 5, 4]

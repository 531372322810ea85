"""Partitions and plans of published parallel decoders, in the arithmetic of their code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from orderings import Grid, InvalidRequest, Plan, PlanSpec, Unsupported, as_options, parse_ordering, parse_partition
from orderings.registry import PLANS
from tests.orderings import cases


def plan(text: str, *shape: int, batch: int = 1, **tokens) -> Plan:
    return Plan.sample(*PlanSpec.parse(text), Grid(shape), batch, cases.noise(batch), **tokens)


@pytest.mark.parametrize("length", [64, 256, 1024])
@pytest.mark.parametrize("method", ["log", "exp"])
def test_log_and_exp_are_maskgit_schedules(method, length):
    """``mask_schedule.schedule`` and the sampler's floor, at least one token fewer than before and one left."""
    for k in (2, 4, 8, 12, 16):
        left, sizes = length, []
        for step in range(1, k):
            ratio, total = np.float32(step / k), np.log2(np.float32(length))
            share = -np.log2(ratio) / total if method == "log" else 1 - np.exp2(-total * (1 - ratio))
            after = max(1, min(left - 1, int(np.floor(length * np.clip(share, np.float32(1e-6), np.float32(1))))))
            sizes.append(left - after)
            left = after
        ours = parse_partition(f"{method}:{k}").sizes(length)
        assert ours.tolist() == [*sizes, left]


@pytest.mark.parametrize(("length", "k"), [(256, 88), (256, 32), (256, 64), (1024, 88), (64, 16)])
def test_randar_sets_are_those_of_its_parallel_decoding(length, k):
    start, size, step, sizes = 0, 1, 0, []
    while start < length:
        sizes.append(size)
        step += 1
        known = min(int((1.0 - math.cos(math.pi / 2.0 * (step + 1) / k)) * length + 1), length)
        start, size = start + size, min(max(known - start - size, 1), length - start - size)
    assert parse_partition(f"randar:{k}").sizes(length).tolist() == sizes and sum(sizes) == length


@pytest.mark.parametrize(
    ("length", "sizes"),
    [
        (256, "1 2 4 5 7 8 10 11 12 14 15 16 17 18 18 19 19 20 20 20"),
        (256, "1 1 2 2 3 3 4 5 5 6 6 7 7 8 8 9 9 10 10 10 11 11 11 11 12 12 12 12 12 12 12 12"),
        (1024, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 23 24 25 26 26 27 28 28 29 29 30 30 31 31 "
               "32 32 32 33 33 33 33 33 33 33 34"),
    ],
)  # fmt: skip
def test_lpd_sets_are_the_tables_that_it_generates_with(length, sizes):
    found = [int(size) for size in sizes.split()]
    assert parse_partition(f"lpd:{len(found)}").sizes(length).tolist() == found


def test_lpd_sets_begin_with_one_token_and_never_shrink():
    for length in (1, 2, 3, 7, 64, 100, 300):
        for k in range(1, length + 1):
            sizes = parse_partition(f"lpd:{k}").sizes(length)
            assert len(sizes) == k and int(sizes.sum()) == length and int(sizes.min()) >= 1
            assert (k == 1 or sizes[0] == 1) and (sizes.diff() >= 0).all()


def test_nar_generates_diagonals():
    i_L, j_L = Grid((5, 7)).coordinates().unbind(1)
    assert torch.equal(plan("nar", 5, 7).step_BL[0], i_L + j_L)
    channels = plan("nar", 3, 4, 3).step_BL.reshape(3, 4, 3)
    assert torch.equal(channels, plan("nar", 3, 4).step_BL.reshape(3, 4, 1).expand(-1, -1, 3))


@pytest.mark.parametrize("side", [2, 4])
def test_par_generates_one_token_of_each_region_as_its_code(side):
    """Its tokens in sequence, reshaped to (inside, inside, region, region) and permuted to the picture."""
    n, regions = 8, side * side
    sequence = torch.arange(n * n).reshape(n // side, n // side, side, side).permute(2, 0, 3, 1).reshape(-1)
    step = torch.where(sequence < regions, sequence, regions + sequence // regions - 1)
    found = plan(f"regions:{side}/regions:{side}", n, n)
    assert torch.equal(found.rank_BL[0], sequence) and torch.equal(found.step_BL[0], step)
    together = plan(f"regions:{side}/regions:{side}:start=parallel", n, n).step_BL[0]
    assert torch.equal(together, sequence // regions)


def test_no_set_has_two_tokens_of_a_region_and_none_could_hold_the_next():
    grid, count = Grid((6, 9)), (2, 3)
    region_L = (grid.coordinates() // 3 * torch.tensor([3, 1])).sum(1)
    kind_BL = torch.randint(0, 4, (30, 54), generator=torch.Generator().manual_seed(0))
    text = f"random/regions:{count[0]}x{count[1]}:start=parallel"
    found = plan(text, *grid.shape, batch=30, given_BL=kind_BL == 0, absent_BL=kind_BL == 1)
    for rank_L, step_L, scored_L in zip(found.rank_BL, found.step_BL, found.scored_BL, strict=True):
        seen, step = set(), 0
        for token in sorted(scored_L.nonzero()[:, 0].tolist(), key=rank_L.tolist().__getitem__):
            if int(region_L[token]) in seen:
                seen, step = set(), step + 1
            seen.add(int(region_L[token]))
            assert step_L[token] == step
    sequential = plan(text.removesuffix(":start=parallel"), *grid.shape).step_BL[0]
    assert sequential.bincount()[:2].tolist() == [1, 1]


@pytest.mark.parametrize("shape", [(8, 8), (7, 5)])
def test_two_stages_generate_one_colour_of_the_board_first(shape):
    found = plan("checkerboard:random/two-stage:6:rest=2", *shape, batch=20)
    colour_L = Grid(shape).coordinates().sum(1) % 2
    assert torch.equal(found.step_BL >= 6, (colour_L == 1).expand(20, -1))
    assert found.n_steps_B.tolist() == [8] * 20
    skeleton = -(-math.prod(shape) // 2)
    sizes = [
        *parse_partition("cosine:6").sizes(skeleton),
        *parse_partition("cosine:2").sizes(math.prod(shape) - skeleton),
    ]
    assert found.sizes()[0].tolist() == sizes
    assert len({tuple(row) for row in found.rank_BL.tolist()}) == 20


def test_a_plain_checkerboard_is_written_as_ever():
    assert as_options(parse_ordering("checkerboard")) == {} and not parse_ordering("checkerboard").random
    assert as_options(parse_ordering("checkerboard:random")) == {"inner": "random"}


def test_names_of_published_plans_are_plans():
    assert {name: str(PlanSpec.parse(name)) for name in PLANS} == PLANS
    assert plan("lpd", 16, 16).sizes()[0].tolist()[:4] == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        (
            "raster/two-stage:9",
            (4, 4),
            "two-stage:9:rest=1 asks for more steps than the halves of the 16 tokens of 4x4",
        ),
        ("raster/regions:5", (4, 4), "5x5 regions do not fit the 2-D grid 4x4"),
        ("regions:2x2", (16,), "2x2 regions do not fit the 1-D grid 16"),
        ("randar", (8, 8), "randar:88 asks for more steps than the 64 tokens"),
    ],
)
def test_grids_that_do_not_fit_are_refused(text, shape, message):
    with pytest.raises(Unsupported, match=message):
        plan(text, *shape)


@pytest.mark.parametrize("text", ["lpd:0", "two-stage:0", "regions:0", "regions:2:start=maybe"])
def test_bad_options_are_refused(text):
    with pytest.raises(InvalidRequest):
        parse_partition(text)

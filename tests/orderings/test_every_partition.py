"""Properties of every registered partition, and the schedules' closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orderings import (
    ABSENT,
    GIVEN,
    PARTITIONS,
    Grid,
    InvalidRequest,
    Plan,
    Unsupported,
    parse_ordering,
    parse_partition,
)
from tests.orderings import cases

ALL = cases.partitions()
named = pytest.mark.parametrize("partition", ALL.values(), ids=ALL.keys())
ORDERS = [parse_ordering(text) for text in ("random", "raster", "hilbert", "blocks:3", "halton")]


@named
def test_steps_cover_every_token_without_an_empty_step(partition):
    served = 0
    for grid in cases.GRIDS:
        for ordering in ORDERS:
            plan = cases.plan_or_none(ordering, partition, grid)
            if plan is not None:
                served += 1
                by_rank = plan.step_BL.gather(1, plan.rank_BL.argsort(1))
                growth = by_rank.diff(dim=1)
                assert (by_rank[:, 0] == 0).all() and ((growth == 0) | (growth == 1)).all()
                assert plan.sizes().sum(1).tolist() == [len(grid)] * 3
    assert served >= 10


@named
def test_given_and_absent_tokens_pass_through(partition):
    grid = Grid((6, 4))
    rng = torch.Generator().manual_seed(0)
    for _ in range(2):
        kind_BL = torch.randint(0, 4, (5, 24), generator=rng)
        given_BL, absent_BL = kind_BL == 0, kind_BL == 1
        given_BL[0], absent_BL[1], given_BL[2], absent_BL[2] = True, True, False, False
        for ordering in ORDERS:
            plan = cases.plan_or_none(ordering, partition, grid, 5, given_BL=given_BL, absent_BL=absent_BL)
            assert plan is not None or partition == parse_partition("cosine:1000")
            if plan is not None:
                assert torch.equal(plan.step_BL == GIVEN, given_BL & ~absent_BL)
                assert torch.equal(plan.step_BL == ABSENT, absent_BL)
                for row in range(5):
                    rank, step = plan.rank_BL[row][plan.scored_BL[row]], plan.step_BL[row][plan.scored_BL[row]]
                    growth = step[rank.argsort()].diff()
                    assert ((growth == 0) | (growth == 1)).all()
                    assert len(step) == 0 or step.min() == 0
                assert plan.n_steps_B[1] == 0 and plan.sizes().sum(1).tolist() == plan.scored_BL.sum(1).tolist()


@named
def test_rows_do_not_depend_on_each_other(partition):
    grid = Grid((6, 4))
    rank_BL = parse_ordering("random").ranks(grid, 4, cases.noise(4))
    step_BL = partition.steps(rank_BL, grid)
    for row in range(4):
        assert torch.equal(partition.steps(rank_BL[row : row + 1], grid)[0], step_BL[row])


@pytest.mark.parametrize("name", PARTITIONS)
def test_defaults_construct_and_say_what_they_do(name):
    assert PARTITIONS[name]().summary


def published_schedule(length: int, steps: int) -> list[int]:
    """The set sizes of MAR's sampler, in its own arithmetic."""
    masked, sizes = length, []
    for step in range(steps):
        mask_len = np.floor(length * np.cos(math.pi / 2.0 * (step + 1) / steps))
        mask_len = max(1, min(masked - 1, mask_len))
        sizes.append(int(masked if step >= steps - 1 else masked - mask_len))
        masked = int(mask_len)
    return sizes


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 49, 64, 100, 196, 256, 784, 1024])
def test_cosine_is_the_integer_schedule_of_mar(length):
    for steps in {1, 2, 3, 4, 5, 8, 12, 16, 31, 32, 64, 100, 128, 256, length - 1, length}:
        if 1 <= steps <= length:
            assert parse_partition(f"cosine:{steps}").sizes(length).tolist() == published_schedule(length, steps)


@given(st.sampled_from(["cosine", "linear", "power", "arccos"]), st.integers(1, 200), st.data())
def test_schedules_have_exactly_k_sets(name, length, data):
    k = data.draw(st.integers(1, length))
    options = f":exponent={data.draw(st.floats(0.05, 20.0))}" if name == "power" else ""
    sizes = parse_partition(f"{name}:{k}{options}").sizes(length)
    assert len(sizes) == k and int(sizes.min()) >= 1 and int(sizes.sum()) == length


@pytest.mark.parametrize(
    ("text", "n", "sizes"),
    [
        ("singles", 4, [1, 1, 1, 1]),
        ("equal:4", 10, [4, 4, 2]),
        ("equal:4", 3, [3]),
        ("cosine:4", 16, [2, 3, 5, 6]),
        ("linear:4", 16, [4, 4, 4, 4]),
        ("linear:7", 49, [7] * 7),
        ("linear:4", 10, [3, 2, 3, 2]),
        ("power:4", 16, [1, 3, 5, 7]),
        ("power:4:exponent=1", 16, [4, 4, 4, 4]),
        ("power:4:exponent=0.5", 16, [8, 4, 2, 2]),
        ("arccos:4", 16, [2, 3, 3, 8]),
        ("arccos:16", 256, [10, 10, 10, 11, 10, 11, 11, 12, 12, 13, 13, 15, 16, 19, 25, 58]),
        ("cosine:9", 4, [1, 1, 1, 1]),
        ("sizes:1,3,12", 16, [1, 3, 12]),
        ("sizes:1,3,12", 10, [1, 3, 6]),
        ("sizes:1,3,12", 4, [1, 3]),
        ("sizes", 5, [5]),
    ],
)
def test_sizes_written_out_by_hand(text, n, sizes):
    assert parse_partition(text).sizes(n).tolist() == sizes


@pytest.mark.parametrize("length", [64, 196, 256, 1024])
def test_arccos_sets_are_those_of_the_published_halton_sampler(length):
    """Its loop: r = int((1 - arccos(ratio) / (pi / 2)) L), at least one token more than before, in float32."""
    for k in [*range(1, min(length, 80)), length]:
        ends = []
        for step in range(k):
            revealed = 1 - torch.arccos(torch.tensor((step + 1) / k)) / (math.pi * 0.5)
            ends.append(max(step + 1, int(revealed * length)))
        assert parse_partition(f"arccos:{k}").sizes(length).tolist() == np.diff([0, *ends]).tolist()


@pytest.mark.parametrize("length", [10, 49, 64, 97])
def test_linear_sets_differ_by_one_token_at_most(length):
    for k in range(1, length + 1):
        sizes = parse_partition(f"linear:{k}").sizes(length)
        assert int(sizes.max() - sizes.min()) <= 1


def test_block_sets_are_the_blocks_of_the_ordering_of_that_size():
    for size in ("2", "3", "2x3"):
        grid = Grid((5, 7))
        ordering = parse_ordering(f"blocks:{size}:outer=random:inner=random")
        plan = Plan.sample(ordering, parse_partition(f"blocks:{size}"), grid, 3, cases.noise(3))
        height, width = (int(size[0]), int(size[-1]))
        block = grid.coordinates() // torch.tensor([height, width])
        for step_L in plan.step_BL:
            for step in range(int(step_L.max()) + 1):
                assert len(block[step_L == step].unique(dim=0)) == 1
        assert plan.n_steps_B.tolist() == [math.ceil(5 / height) * math.ceil(7 / width)] * 3


def test_block_sets_change_with_the_block_of_the_last_generated_token():
    """Given and absent tokens in between change nothing."""
    grid = Grid((4, 4))
    block_L = (grid.coordinates() // 2 * torch.tensor([2, 1])).sum(1).tolist()
    kind_BL = torch.randint(0, 4, (50, 16), generator=torch.Generator().manual_seed(0))
    draw = (parse_ordering("random"), parse_partition("blocks:2"), grid, 50, cases.noise(50))
    plan = Plan.sample(*draw, given_BL=kind_BL == 0, absent_BL=kind_BL == 1)
    for rank_L, step_L, scored_L in zip(plan.rank_BL, plan.step_BL, plan.scored_BL, strict=True):
        tokens = sorted(scored_L.nonzero()[:, 0].tolist(), key=rank_L.tolist().__getitem__)
        changes = [block_L[a] != block_L[b] for a, b in itertools.pairwise(tokens)]
        assert step_L[tokens].tolist() == list(itertools.accumulate(changes, initial=0))


def test_a_block_entered_twice_gives_two_sets():
    plan = Plan.sample(parse_ordering("raster"), parse_partition("blocks:2"), Grid((2, 4)), 1, cases.noise(1))
    assert plan.step_BL.reshape(2, 4).tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]


@pytest.mark.parametrize(
    ("text", "grid", "message"),
    [
        ("cosine:100", "8x8", "cosine:100 asks for more steps than the 64 tokens of 8x8 allow"),
        ("arccos:2", "1", "arccos:2 asks for more steps"),
        ("sizes:1,3,12", "4x5", "sizes:1,3,12 sums to 16, but 4x5 has 20 tokens"),
        ("blocks:2x2", "16", "blocks of 2x2 do not fit the 1-D grid 16"),
    ],
)
def test_impossible_partitions_say_why(text, grid, message):
    with pytest.raises(Unsupported, match=message):
        Plan.sample(parse_ordering("raster"), parse_partition(text), Grid.parse(grid), 1, cases.noise(1))


@pytest.mark.parametrize("text", ["equal:0", "cosine:0", "power:4:exponent=0", "sizes:3,0", "blocks:0"])
def test_impossible_options_are_refused_when_written(text):
    with pytest.raises(InvalidRequest, match=text.partition(":")[0]):
        parse_partition(text)

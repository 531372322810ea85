"""Orders that are drawn: their distributions, and that rows and seeds decide them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from orderings import Grid, InvalidRequest, Plan, Seeded, Unsupported, parse_ordering, parse_partition
from tests.orderings import cases


def draws(text: str, shape: tuple[int, ...], batch: int) -> list[tuple[int, ...]]:
    rank_BL = parse_ordering(text).ranks(Grid(shape), batch, cases.noise(batch))
    return [tuple(row) for row in rank_BL.tolist()]


@pytest.mark.parametrize("text", ["random", "blocks:4:inner=random", "segments:1"])
def test_all_24_orders_of_four_tokens_are_equally_likely(text):
    count = Counter(draws(text, (4,), 24_000))
    assert len(count) == 24
    assert chisquare(list(count.values())).pvalue > 1e-6


def test_blocks_with_random_outer_and_inner_orders_draw_them_independently():
    count = Counter(draws("blocks:2:outer=random:inner=random", (4,), 16_000))
    assert len(count) == 8  # 2 orders of blocks × 2 × 2 inside them
    assert chisquare(list(count.values())).pvalue > 1e-6


def test_one_fixed_random_order_is_named_by_its_seed():
    assert cases.ranks("fixed-random", 8) == [6, 2, 1, 7, 3, 0, 5, 4]  # for ever: NumPy freezes RandomState
    assert cases.ranks("fixed-random:1", 8) != cases.ranks("fixed-random", 8)
    assert len(set(draws("fixed-random", (64,), 10))) == 1


@pytest.mark.parametrize("shape", [(16,), (4, 4), (5, 3), (4, 4, 3)])
def test_a_rolled_halton_order_is_the_fixed_one_begun_elsewhere(shape):
    length = Grid(shape).shape
    fixed = torch.tensor(cases.ranks("halton:fixed", *shape)).flatten()
    channels = length[2] if len(length) == 3 else 1
    shifts = Counter()
    for row in draws("halton", shape, 4000):
        shift = (row[0] - int(fixed[0])) % len(fixed)
        assert torch.equal(torch.tensor(row), (fixed + shift) % len(fixed))
        shifts[shift] += 1
    assert sorted(shifts) == list(range(0, len(fixed), channels))
    assert chisquare(list(shifts.values())).pvalue > 1e-6


def test_halton_spreads_evenly_from_the_first_tokens_on():
    """Any 6 consecutive points lie one in each of the 2×3 boxes (asked of few tokens: no point repeats a pixel yet)."""
    path = torch.tensor(cases.ranks("halton:fixed", 64, 81)).flatten().argsort()[: 6 * 20]
    boxes = torch.stack([path // 81 // 32, path % 81 // 27], dim=1).reshape(20, 6, 2)
    assert all(len(box.unique(dim=0)) == 6 for box in boxes)


def test_a_source_of_other_rows_is_refused_where_the_order_is_random():
    for text in ("random", "frames:random"):  # rows of one frame would be taken for those of another
        with pytest.raises(InvalidRequest, match=r"Seeded\(1\) draws for 1 rows, not for batch=2"):
            Plan.sample(parse_ordering(text), parse_partition("singles"), Grid.parse("t2x2x2"), 2, Seeded(1))
    Plan.sample(parse_ordering("raster"), parse_partition("singles"), Grid((4,)), 2, Seeded(1))


def test_a_mixture_draws_its_components_with_its_weights():
    count = Counter(draws("mixture:raster+reverse+serpentine:weights=1,2,5", (2, 2), 16_000))
    assert set(count) == {(0, 1, 2, 3), (3, 2, 1, 0), (0, 1, 3, 2)}
    observed = [count[0, 1, 2, 3], count[3, 2, 1, 0], count[0, 1, 3, 2]]
    assert chisquare(observed, [2000, 4000, 10000]).pvalue > 1e-6
    assert set(draws("mixture:raster+reverse:weights=1,0", (4,), 500)) == {(0, 1, 2, 3)}


def test_a_mixture_refuses_a_grid_that_one_of_its_components_refuses():
    with pytest.raises(Unsupported, match="Spiral orders a 2-D or 3-D grid, not the 1-D 9"):
        draws("mixture:raster+spiral", (9,), 2)


@pytest.mark.parametrize(
    ("progress", "probability"), [(0.0, 1.0), (0.49, 1.0), (0.5, 1.0), (0.6, 0.6), (0.7, 0.2), (0.75, 0.0), (1.0, 0.0)]
)
def test_annealing_follows_rar(progress, probability):
    """RAR: 1 before the start, 0 after the end, 1 − (t − start)/(end − start) between."""
    ordering = parse_ordering("annealed:raster:start=.5:end=.75").at(progress)
    assert ordering.probability == pytest.approx(probability, abs=1e-12)
    rank_BL = ordering.ranks(Grid((16,)), 4000, cases.noise(4000))
    random = int((rank_BL != torch.arange(16)).any(1).sum())
    deviation = (4000 * probability * (1 - probability)) ** 0.5
    assert abs(random - 4000 * probability) <= 5 * deviation
    assert ordering.random == (probability > 0)


@pytest.mark.parametrize("text", ["annealed:progress=0.7", "mixture:random+raster:weights=1,4"])
def test_the_choice_to_be_random_says_nothing_about_the_random_order(text):
    rank_BL = parse_ordering(text).ranks(Grid((8,)), 20_000, cases.noise(20_000))
    rank_BL = rank_BL[(rank_BL != torch.arange(8)).any(1)]
    for token in range(8):
        assert chisquare(rank_BL[:, token].bincount(minlength=8).numpy()).pvalue > 1e-6


def test_annealing_at_once_and_nested():
    step = parse_ordering("annealed:raster:start=.5:end=.5")
    assert (step.at(0.49).probability, step.at(0.5).probability) == (1.0, 0.0)
    nested = parse_ordering("mixture:(annealed:raster)+reverse").at(0.25)
    assert nested.orderings[0].progress == 0.25
    blocks = parse_ordering("blocks:2:inner=annealed")
    assert (blocks.random, blocks.at(0.1).random) == (False, True)


@pytest.mark.parametrize("text", ["annealed:start=.8:end=.7", "annealed:end=1.5", "annealed:progress=2"])
def test_impossible_annealing_is_refused(text):
    with pytest.raises(InvalidRequest, match="annealed"):
        parse_ordering(text)


def test_segments_are_sets_of_their_own_and_connected():
    grid, size = Grid((8, 8)), 8
    plan = Plan.sample(parse_ordering(f"segments:{size}"), parse_partition(f"equal:{size}"), grid, 50, cases.noise(50))
    broken = 0
    for step_L in plan.step_BL:
        for step in range(8):
            cells = grid.coordinates()[step_L == step]
            assert len(cells) == size
            broken += not _connected(cells.tolist())
    assert broken <= 50  # at most the one that joins both ends of the curve
    assert len({tuple(row) for row in plan.step_BL.tolist()}) == 50


def test_a_shorter_segment_comes_last():
    plan = Plan.sample(parse_ordering("segments:4"), parse_partition("equal:4"), Grid((10,)), 20, cases.noise(20))
    for step_L in plan.step_BL:
        last = (step_L == 2).nonzero()[:, 0].tolist()
        assert len(last) == 2 and (last[1] - last[0]) % 10 in (1, 9)


def _connected(cells: list[list[int]]) -> bool:
    left, reached = {tuple(c) for c in cells}, [tuple(cells[0])]
    left.discard(reached[0])
    while reached:
        i, j = reached.pop()
        near = left & {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)}
        left -= near
        reached += near
    return not left

"""Scans, spirals, lattices and curves: small examples written out by hand, and paths that must not break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from orderings import Grid, parse_ordering
from orderings.curves import Hilbert
from tests.orderings import cases

BY_HAND = {
    "raster": [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
    "reverse": [[8, 7, 6], [5, 4, 3], [2, 1, 0]],
    "column": [[0, 3, 6], [1, 4, 7], [2, 5, 8]],
    "serpentine": [[0, 1, 2], [5, 4, 3], [6, 7, 8]],
    "serpentine:vertical": [[0, 5, 6], [1, 4, 7], [2, 3, 8]],
    "diagonal": [[0, 1, 3], [2, 4, 6], [5, 7, 8]],
    "diagonal:zigzag": [[0, 1, 5], [2, 4, 6], [3, 7, 8]],
    "centre-out": [[5, 1, 6], [2, 0, 3], [7, 4, 8]],
    "spiral": [[0, 1, 2], [7, 8, 3], [6, 5, 4]],
    "spiral:outward": [[8, 1, 2], [7, 0, 3], [6, 5, 4]],
    "spiral:clockwise=false": [[0, 7, 6], [1, 8, 5], [2, 3, 4]],
    "spiral:outward:clockwise=false": [[8, 7, 6], [1, 0, 5], [2, 3, 4]],
    "spiral:corner=top-right": [[6, 7, 0], [5, 8, 1], [4, 3, 2]],
    "spiral:corner=bottom-right": [[4, 5, 6], [3, 8, 7], [2, 1, 0]],
    "spiral:corner=bottom-left": [[2, 3, 4], [1, 8, 5], [0, 7, 6]],
    "spiral:outward:around=corner": [[0, 1, 8], [3, 2, 7], [4, 5, 6]],
    "spiral:around=corner": [[8, 5, 4], [7, 6, 3], [0, 1, 2]],
    "checkerboard": [[0, 5, 1], [6, 2, 7], [3, 8, 4]],
    "morton": [[0, 1, 4], [2, 3, 5], [6, 7, 8]],
    "subsample": [[0, 4, 1], [6, 8, 7], [2, 5, 3]],
    "hilbert": [[0, 7, 8], [1, 6, 5], [2, 3, 4]],
    "halton:fixed": [[8, 3, 1], [5, 0, 4], [2, 6, 7]],
    "blocks:2": [[0, 1, 4], [2, 3, 5], [6, 7, 8]],
    "blocks:2:inner=reverse": [[3, 2, 5], [1, 0, 4], [7, 6, 8]],
    "blocks:2:outer=reverse": [[5, 6, 3], [7, 8, 4], [1, 2, 0]],
    "blocks:1x3:inner=reverse": [[2, 1, 0], [5, 4, 3], [8, 7, 6]],
}


@pytest.mark.parametrize("text", BY_HAND)
def test_three_by_three_is_as_written_by_hand(text):
    assert cases.ranks(text, 3, 3) == BY_HAND[text]


@pytest.mark.parametrize(
    ("text", "by_hand"),
    [
        ("raster", [0, 1, 2, 3, 4, 5]),
        ("reverse", [5, 4, 3, 2, 1, 0]),
        ("centre-out", [4, 2, 0, 1, 3, 5]),
        ("subsample", [0, 3, 2, 5, 1, 4]),
        ("checkerboard", [0, 3, 1, 4, 2, 5]),
        ("halton:fixed", [3, 1, 4, 0, 2, 5]),
        ("blocks:4", [0, 1, 2, 3, 4, 5]),
        ("blocks:4:outer=reverse:inner=reverse", [5, 4, 3, 2, 1, 0]),
    ],
)
def test_six_tokens_of_text_are_as_written_by_hand(text, by_hand):
    assert cases.ranks(text, 6) == by_hand


def test_the_hilbert_curve_on_a_power_of_two_is_hilberts():
    assert cases.ranks("hilbert", 4, 4) == [[0, 1, 14, 15], [3, 2, 13, 12], [4, 7, 8, 11], [5, 6, 9, 10]]


def test_subsample_visits_each_coarser_grid_before_the_finer_one():
    rank = torch.tensor(cases.ranks("subsample", 8, 8))
    assert sorted(rank[::4, ::4].flatten().tolist()) == [0, 1, 2, 3]
    assert sorted(rank[::2, ::2].flatten().tolist()) == list(range(16))
    assert sorted(rank[::2, 1::2].flatten().tolist()) == list(range(16, 32))
    level = torch.tensor(cases.ranks("subsample:1", 4, 4))
    assert level[::2, ::2].tolist() == [[0, 1], [2, 3]] and level[1::2, 1::2].tolist() == [[12, 13], [14, 15]]


SIZES = [(h, w) for h in range(1, 13) for w in range(1, 13)] + [(16, 24), (31, 17), (20, 33)]


def jumps(text: str, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """The moves along the path that do not lead to one of the four neighbours."""
    rank_L = torch.tensor(cases.ranks(text, *shape)).flatten()
    move = cases.path(rank_L, Grid(shape)).diff(dim=0).abs()
    return [tuple(m) for m in move[move.sum(1) != 1].tolist()]


SPIRALS = [
    f"spiral:{way}:clockwise={sense}:corner={corner}"
    for way in ("inward", "outward")
    for sense in ("true", "false")
    for corner in ("top-left", "top-right", "bottom-right", "bottom-left")
]


@pytest.mark.parametrize("text", ["serpentine", "serpentine:vertical", *SPIRALS])
def test_serpentine_and_spiral_move_to_a_neighbour_only(text):
    assert all(jumps(text, shape) == [] for shape in SIZES)


@pytest.mark.parametrize("text", ["spiral:outward:around=corner", "spiral:around=corner:clockwise=false"])
def test_a_spiral_around_a_corner_is_unbroken_on_squares_and_jumps_once_at_most(text):
    for shape in SIZES:
        assert len(jumps(text, shape)) <= (shape[0] != shape[1])


def test_the_hilbert_path_is_unbroken_but_for_one_diagonal_step_on_odd_by_even():
    for shape in SIZES:
        odd_by_even = max(shape) % 2 == 1 and min(shape) % 2 == 0
        assert jumps("hilbert", shape) in ([], [(1, 1)] if odd_by_even else [])


def generalized_hilbert(x: int, y: int, ax: int, ay: int, bx: int, by: int) -> Iterator[tuple[int, int]]:
    """The published construction, in coordinates: a walk over the rectangle spanned by the vectors a and b."""
    width, height = abs(ax + ay), abs(bx + by)
    (dax, day), (dbx, dby) = (((v > 0) - (v < 0), (w > 0) - (w < 0)) for v, w in ((ax, ay), (bx, by)))
    if height == 1:
        yield from ((x + k * dax, y + k * day) for k in range(width))
    elif width == 1:
        yield from ((x + k * dbx, y + k * dby) for k in range(height))
    else:
        ax2, ay2, bx2, by2 = ax // 2, ay // 2, bx // 2, by // 2
        if 2 * width > 3 * height:
            if abs(ax2 + ay2) % 2 and width > 2:
                ax2, ay2 = ax2 + dax, ay2 + day
            yield from generalized_hilbert(x, y, ax2, ay2, bx, by)
            yield from generalized_hilbert(x + ax2, y + ay2, ax - ax2, ay - ay2, bx, by)
        else:
            if abs(bx2 + by2) % 2 and height > 2:
                bx2, by2 = bx2 + dbx, by2 + dby
            far_x, far_y = x + (ax - dax) + (bx2 - dbx), y + (ay - day) + (by2 - dby)
            yield from generalized_hilbert(x, y, bx2, by2, ax2, ay2)
            yield from generalized_hilbert(x + bx2, y + by2, ax, ay, bx - bx2, by - by2)
            yield from generalized_hilbert(far_x, far_y, -bx2, -by2, ax2 - ax, ay2 - ay)


@pytest.mark.parametrize("height", range(1, 41))
def test_the_hilbert_path_is_the_published_one_on_every_grid_up_to_40_by_40(height):
    for width in range(1, 41):
        sides = (width, 0, 0, height) if width >= height else (0, height, width, 0)
        published = [y * width + x for x, y in generalized_hilbert(0, 0, *sides)]
        assert Hilbert().pixels(Grid((height, width))).argsort().tolist() == published


def test_the_hilbert_path_keeps_neighbours_close():
    """In 16×16, tokens one fourth of the path long stay inside a quadrant: what sets it apart from a serpentine."""
    grid = Grid((16, 16))
    path = cases.path(parse_ordering("hilbert").ranks(grid, 1, cases.noise(1))[0], grid)
    for quarter in path.reshape(4, 64, 2):
        assert (quarter.amax(0) - quarter.amin(0)).tolist() == [7, 7]


def test_diagonals_come_one_after_the_other():
    for text in ("diagonal", "diagonal:zigzag"):
        grid = Grid((5, 8))
        sums = cases.path(parse_ordering(text).ranks(grid, 1, cases.noise(1))[0], grid).sum(1)
        assert (sums.diff() >= 0).all()
    assert set(jumps("diagonal:zigzag", (7, 7))) == {(1, 1)}


def test_an_outward_spiral_is_the_inward_one_backwards():
    for shape in ((5, 5), (4, 7)):
        inward = torch.tensor(cases.ranks("spiral:clockwise=false", *shape))
        assert cases.ranks("spiral:outward", *shape) == (shape[0] * shape[1] - 1 - inward).tolist()

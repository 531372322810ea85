"""The eight images of an order: the group they form, LMConv's sequence, the mixture and its components."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from orderings import Grid, InvalidRequest, Plan, Seeded, Unsupported, as_options, parse_ordering, to_text
from orderings.partitions import Singles
from tests.orderings import cases

EIGHT = ("", ":flip=h", ":flip=v", ":rot90=1", ":rot90=2", ":rot90=3", ":transpose=true", ":transpose=true:rot90=2")


def test_images_of_a_raster_written_out():
    assert cases.ranks("raster:flip=h", 2, 3) == [[2, 1, 0], [5, 4, 3]]
    assert cases.ranks("raster:flip=v", 2, 3) == [[3, 4, 5], [0, 1, 2]]
    assert cases.ranks("raster:rot90=1", 2, 3) == [[4, 2, 0], [5, 3, 1]]  # the first row goes down the right side
    assert cases.ranks("raster:rot90=3", 2, 3) == [[1, 3, 5], [0, 2, 4]]
    assert cases.ranks("raster:transpose=true", 2, 3) == cases.ranks("column", 2, 3)
    assert cases.ranks("raster:rot90=2", 3, 4) == cases.ranks("reverse", 3, 4)
    assert cases.ranks("raster:flip=h", 1, 2, 3) == [[[3, 4, 5], [0, 1, 2]]]  # the channels of a pixel stay as they are


@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
@pytest.mark.parametrize("of", ["spiral:outward", "hilbert", "fixed-random:3"])
def test_flips_and_turns_are_those_of_the_picture(of, shape):
    plain = {s: torch.tensor(cases.ranks(of, *s)) for s in (shape, shape[::-1])}
    for transposed, flip, turns in itertools.product((False, True), ("none", "h", "v", "hv"), range(4)):
        picture = plain[shape[::-1] if transposed != bool(turns % 2) else shape]
        picture = picture.T if transposed else picture
        picture = picture.flip([{"h": 1, "v": 0}[axis] for axis in flip if axis in "hv" and flip != "none"])
        text = f"{of}:transpose={transposed}:flip={flip}:rot90={turns}"
        assert cases.ranks(text, *shape) == torch.rot90(picture, -turns).tolist()


def test_every_image_has_one_text_that_parses_to_it():
    for transposed, flip, turns in itertools.product((False, True), ("none", "h", "v", "hv"), range(4)):
        ordering = parse_ordering(f"diagonal:zigzag:transpose={transposed}:flip={flip}:rot90={turns}")
        assert to_text(ordering).removeprefix("diagonal:zigzag") in EIGHT
        assert parse_ordering(to_text(ordering)) == parse_ordering("diagonal", as_options(ordering)) == ordering
    assert parse_ordering("raster:flip=hv:rot90=2") == parse_ordering("raster")
    assert "flip" not in as_options(parse_ordering("raster"))  # what is off is not written into recipes


def test_lmconv_orders_are_the_eight_images_of_the_serpentine():
    """Its ``augment_orders``: the coordinates, with reflected rows, columns, both; the same of the transposed ones."""
    n = 4
    path = [(i, j if i % 2 == 0 else n - 1 - j) for i in range(n) for j in range(n)]
    eight = []
    for way in (path, [(j, i) for i, j in path]):
        eight += [way, [(n - 1 - i, j) for i, j in way], [(i, n - 1 - j) for i, j in way]]
        eight += [[(n - 1 - i, n - 1 - j) for i, j in way]]
    grid = Grid((n, n))
    for theirs, ours in zip(eight, parse_ordering("symmetries:serpentine").components, strict=True):
        assert cases.path(ours.ranks(grid, 1, Seeded(1))[0], grid).tolist() == [list(place) for place in theirs]


def test_each_row_draws_one_of_the_components_all_equally_often():
    grid, ordering = Grid((2, 3)), parse_ordering("symmetries:raster")
    count = Counter(tuple(row) for row in ordering.ranks(grid, 8000, cases.noise(8000)).tolist())
    assert set(count) == {tuple(one.ranks(grid, 1, Seeded(1))[0].tolist()) for one in ordering.components}
    assert len(count) == 8 and chisquare(list(count.values())).pvalue > 1e-6


def test_a_mixture_says_how_many_components_it_has():
    sizes = {"raster": 0, "random": 0, "symmetries": 8, "mixture:raster+spiral+reverse": 3, "symmetries:random": 0}
    sizes |= {"mixture:raster+random": 0, "mixture:raster+reverse:weights=2,2": 2, "symmetries:raster:flip=h": 8}
    sizes |= {"mixture:raster+reverse:weights=1,2": 0, "mixture:(symmetries:raster)+raster": 0}
    assert {text: len(parse_ordering(text).components) for text in sizes} == sizes


def test_random_orders_and_plans_have_images_too():
    ordering = parse_ordering("blocks:2:inner=random:rot90=1/singles".partition("/")[0])
    plan = Plan.sample(ordering, Singles(), Grid((4, 6)), 3, cases.noise(3))
    inner = parse_ordering("blocks:2:inner=random").ranks(Grid((6, 4)), 3, cases.noise(3)).reshape(3, 6, 4)
    assert torch.equal(plan.rank_BL.reshape(3, 4, 6), torch.rot90(inner, -1, (1, 2)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raster:flip=x", "value of flip 'x': choose from h, hv, v"),
        ("raster:rot90=4", "rot90 is in 0..3, not 4"),
        ("raster:fliip=h", "did you mean 'flip'"),
        ("learned:flip=h", "take an order that is no policy's"),
    ],
)
def test_bad_symmetries_are_refused(text, message):
    with pytest.raises(InvalidRequest, match=message):
        parse_ordering(text)


@pytest.mark.parametrize("text", ["raster:flip=h", "symmetries:raster"])
def test_a_line_of_tokens_has_no_symmetries(text):
    with pytest.raises(Unsupported, match="the 1-D 9"):
        parse_ordering(text).ranks(Grid((9,)), 1, cases.noise(1))

"""The short notation: what it means, that it round-trips, and its errors."""

from __future__ import annotations

import importlib.metadata
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orderings as o
from orderings.blocks import Blocks, Segments
from orderings.partitions import Cosine, Equal, Power, Singles, Sizes
from orderings.places import BlockSets
from orderings.scans import Raster, Serpentine, Spiral
from orderings.stochastic import Annealed, FixedRandom, Mixture, Random
from orderings.user import File
from tests.orderings import cases

BY_HAND = {
    "raster": (Raster(), Singles()),
    "spiral/cosine:16": (Spiral(), Cosine(16)),
    "spiral:outward": (Spiral(inward=False), Singles()),
    "spiral:inward=false": (Spiral(inward=False), Singles()),
    "spiral:around=corner:clockwise=no": (Spiral(around="corner", clockwise=False), Singles()),
    "blocks:4:inner=serpentine": (Blocks((4,), inner=Serpentine()), Singles()),
    "blocks:4x2:outer=(spiral:outward)/blocks:4x2": (Blocks((4, 2), outer=Spiral(False)), BlockSets((4, 2))),
    "raster/equal:4": (Raster(), Equal(4)),
    "raster/sizes:1,3,12": (Raster(), Sizes((1, 3, 12))),
    "random/sizes:(1,3,12)": (Random(), Sizes((1, 3, 12))),  # in a list of plans with commas between them
    "raster/power:8:exponent=.5": (Raster(), Power(8, 0.5)),
    "file:my.json": (File("my.json"), Singles()),
    "file:orders/my.json": (File("orders/my.json"), Singles()),
    "file:/tmp/my.json/equal:2": (File("/tmp/my.json"), Equal(2)),
    "user:(a=b.txt):holds=positions": (File("a=b.txt", "positions"), Singles()),
    "mixture:raster+spiral+random": (Mixture((Raster(), Spiral(), Random())), Singles()),
    "mixture:raster+(spiral:outward):weights=1,3": (Mixture((Raster(), Spiral(False)), (1.0, 3.0)), Singles()),
    "annealed:raster:start=.5:end=.75": (Annealed(), Singles()),
    "annealed:spiral:start=0.2": (Annealed(Spiral(), start=0.2), Singles()),
    " Fixed_Random:3 ": (FixedRandom(3), Singles()),
    "segments:8:along=none": (Segments(8), Singles()),
    "alternate": (Serpentine(), Singles()),
}


@pytest.mark.parametrize("text", BY_HAND)
def test_notation_means_what_it_says_and_round_trips(text):
    assert o.PlanSpec.parse(text) == BY_HAND[text]
    assert o.PlanSpec.parse(str(o.PlanSpec(*BY_HAND[text]))) == BY_HAND[text]


def test_the_canonical_text_is_short():
    for text in (
        "spiral:outward/cosine:16",
        "blocks:4x2:inner=serpentine",
        "raster",
        "fixed-random:0",
        "raster/equal:4",
    ):
        assert str(o.PlanSpec.parse(text)) == text
    assert str(o.PlanSpec.parse("spiral:inward=true/singles")) == "spiral"
    assert str(o.PlanSpec.parse("raster/cosine")) == "raster/cosine:16"
    assert o.to_text(Singles()) == "singles"


@pytest.mark.parametrize("name", list(o.ORDERINGS))
def test_every_default_ordering_round_trips(name):
    ordering = o.ORDERINGS[name]()
    assert o.parse_ordering(o.to_text(ordering)) == ordering
    assert o.parse_ordering(name, o.as_options(ordering)) == ordering


FIXED = st.sampled_from([o.ORDERINGS[n]() for n in o.ORDERINGS if n not in ("mixture", "annealed", "file", "blocks")])
FRACTION = st.floats(0, 1)
BASES = st.one_of(
    FIXED,
    st.builds(Spiral, st.booleans(), st.booleans(), st.sampled_from(["centre", "corner"])),
    st.builds(FixedRandom, st.integers(0, 2**32 - 1)),
    st.builds(File, st.text(string.ascii_letters + ":/+=,. ~-_", max_size=20).map(str.strip)),
)


def _composites(inner):
    sizes = st.lists(st.integers(1, 99), min_size=1, max_size=3).map(tuple)
    weighted = st.lists(st.tuples(inner, st.floats(0.01, 1e6)), min_size=1, max_size=3)
    return st.one_of(
        st.builds(Blocks, sizes, inner, inner),
        st.builds(lambda pairs: Mixture(tuple(a for a, _ in pairs), tuple(w for _, w in pairs)), weighted),
        st.builds(lambda target, a, b: Annealed(target, min(a, b), max(a, b)), inner, FRACTION, FRACTION),
    )


PARTITIONS = st.one_of(
    st.just(Singles()),
    st.builds(Equal, st.integers(1, 10**6)),
    st.builds(Cosine, st.integers(1, 10**6)),
    st.builds(Power, st.integers(1, 99), st.floats(1e-6, 1e6)),
    st.builds(Sizes, st.lists(st.integers(1, 99), max_size=5).map(tuple)),
    st.builds(BlockSets, st.lists(st.integers(1, 99), min_size=1, max_size=3).map(tuple)),
)


@given(st.recursive(BASES, _composites, max_leaves=6), PARTITIONS)
def test_any_plan_round_trips(ordering, partition):
    assert o.PlanSpec.parse(str(o.PlanSpec(ordering, partition))) == (ordering, partition)
    assert o.parse_ordering(o.name_of(ordering), o.as_options(ordering)) == ordering


def test_recipes_give_plain_values():
    assert o.parse_ordering("blocks", {"size": 4, "inner": "random"}) == Blocks((4,), inner=Random())
    assert o.parse_ordering("blocks", {"size": [4, 2], "outer": {"kind": "spiral", "inward": False}}) == Blocks(
        (4, 2), outer=Spiral(False)
    )
    assert o.parse_ordering("mixture", {"orderings": ["raster", "random"], "weights": [1, 2]}).weights == (1.0, 2.0)
    assert o.parse_ordering("segments", {"along": None}) == Segments()
    assert o.parse_partition("sizes", {"sets": [1, 3]}) == Sizes((1, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spirl", "unknown ordering 'spirl': did you mean 'spiral'"),
        ("spiral/cosin:4", "unknown partition 'cosin': did you mean 'cosine'"),
        ("spiral:clockwis=true", "unknown option of spiral: 'clockwis': did you mean 'clockwise'"),
        ("spiral:outwards", "unknown value of inward 'outwards': did you mean 'outward'"),
        ("spiral:around=center", "unknown value of around 'center': did you mean 'centre'"),
        ("blocks:4:outer=hilbrt", "unknown ordering 'hilbrt': did you mean 'hilbert'"),
        ("raster:3", "raster has no options"),
        ("raster/equal:four", "size is a whole number, not 'four'"),
        ("raster/equal:2.5", "size is a whole number, not '2.5'"),
        ("annealed:start=nan", "start is a number, not 'nan'"),
        ("spiral:inward:outward", "a further option is written option=value"),
        ("spiral:inward=true:inward=false", "inward is given twice"),
        ("mixture:(raster", "parentheses do not pair up"),
        ("raster)/equal(", "parentheses do not pair up"),
        ("mixture:raster:weights=1,2", "2 weights for 1 orderings"),
        ("blocks:0", "a size is like 4"),
        ("", "unknown ordering ''"),
    ],
)
def test_mistakes_get_one_line_with_what_would_do(text, message):
    with pytest.raises(o.InvalidRequest) as error:
        o.PlanSpec.parse(text)
    assert message in str(error.value) and "\n" not in str(error.value)


NASTY = (
    *("1e20", "-1e20", "100000000000000000000", "-1", "0", "nan", "inf", "-inf", "", " ", "none", "true", "~", "x=1"),
    *("a" * 300, "9" * 5000, "(" * 50 + "raster" + ")" * 50, "1,2", "1x2x3x4", "raster+", "+", "é ", "\x00", "0.5"),
    "~/x.json",
)


@pytest.mark.parametrize("value", NASTY, ids=lambda value: ascii(value)[:20])
def test_any_value_of_any_option_is_taken_or_refused_in_one_line(value):
    grid = o.Grid((3, 4))
    for family, plan in ((o.ORDERINGS, "{}/equal:5"), (o.PARTITIONS, "random/{}")):
        for name, cls in family.items():
            for option in o.option_grammar(cls):
                for text in (f"{name}:{option}={value}", f"{name}:{option}=({value})"):
                    try:
                        drawn = o.Plan.sample(*o.PlanSpec.parse(plan.format(text)), grid, 2, cases.noise(2))
                    except o.Unsupported as refusal:
                        assert "\n" not in str(refusal)
                    except o.InvalidRequest as refusal:
                        assert "\n" not in str(refusal) and len(str(refusal)) < 600
                    else:
                        assert drawn.sizes().sum(1).tolist() == [12, 12]


@given(st.text(alphabet="spiralmxtueok:/()+=,.-0159_ ~é", max_size=40))
def test_any_text_is_a_plan_or_is_refused_in_one_line(text):
    try:
        spec = o.PlanSpec.parse(text, adaptive=True)
    except o.InvalidRequest as refusal:
        assert "\n" not in str(refusal)
    else:
        assert o.PlanSpec.parse(str(spec), adaptive=True) == spec


def test_orderings_inside_orderings_end_somewhere():
    deep = "annealed:(" * 8 + "raster" + ")" * 8
    assert o.parse_ordering(deep).at(1.0).ranks(o.Grid((4,)), 1, cases.noise(1)).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(o.InvalidRequest, match="nest at most 16 deep"):
        o.parse_ordering("annealed:(" * 5000 + "raster" + ")" * 5000)
    options: dict = {"target": "raster"}
    for _ in range(2000):
        options = {"target": {"kind": "annealed", **options}}
    with pytest.raises(o.InvalidRequest, match="too many orderings inside orderings"):
        o.parse_ordering("annealed", options)


@pytest.mark.parametrize("text", ["100000x100000", "100000000000000000000", "1x1x100000000", "4194305"])
def test_grids_that_would_not_fit_into_memory_are_refused_by_their_size(text):
    with pytest.raises(o.InvalidRequest, match="at most 4,194,304 tokens"):
        o.Grid.parse(text)


@pytest.mark.parametrize(
    ("text", "grid", "message"),
    [
        ("spiral", "64", "Spiral orders a 2-D or 3-D grid, not the 1-D 64"),
        ("blocks:4:inner=hilbert", "64", "Hilbert orders a 2-D or 3-D grid"),
        ("blocks:4x4x4", "8x8", "blocks of 4x4x4 do not fit the 2-D grid 8x8"),
    ],
)
def test_orderings_refuse_grids_they_make_no_sense_on(text, grid, message):
    with pytest.raises(o.Unsupported, match=message):
        o.Plan.sample(*o.PlanSpec.parse(text), o.Grid.parse(grid), 1, cases.noise(1))


class Plugged(Raster):
    summary = "another package's"


def test_installed_packages_plug_in_through_entry_points(monkeypatch):
    entry = importlib.metadata.EntryPoint("plugged", "anywhere:Plugged", "mar.orderings")
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Plugged)
    monkeypatch.setattr("orderings.registry.entry_points", lambda group: [entry] if group == "mar.orderings" else [])
    assert o.ORDERINGS["plugged"] is Plugged
    assert isinstance(o.parse_ordering("plugged"), Plugged) and o.to_text(Plugged()) == "plugged"
    with pytest.raises(o.UnknownName, match="did you mean 'plugged'"):
        o.ORDERINGS["pluged"]
    with pytest.raises(o.UnknownName, match="unknown partition"):
        o.PARTITIONS["plugged"]


def test_a_message_that_quotes_a_long_text_is_one_line_of_bearable_length():
    with pytest.raises(o.Unsupported, match=r"sizes:1,1.* … ") as error:
        o.Plan.sample(*o.PlanSpec.parse("raster/sizes:" + ",".join(["1"] * 5000)), o.Grid((8, 8)), 1, cases.noise(1))
    assert len(str(error.value)) < 1000 and "\n" not in str(error.value)


def test_a_partition_without_an_ordering_is_named_as_one():
    said = "optimal:16 is a partition: write an ordering before it, such as random/optimal:16"
    with pytest.raises(o.InvalidRequest, match=said):
        o.PlanSpec.parse("optimal:16", adaptive=True)
    assert str(o.PlanSpec.parse("blocks:4")) == "blocks:4"  # an ordering and a partition

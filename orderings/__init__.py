"""Orderings and partitions: who comes before whom, and where the sequence is cut into sets.

ordering, partition = parse_plan("spiral/cosine:16")
plan = Plan.draw(ordering, partition, Grid((16, 16)), batch=8, generator=Seeded(8))
plan.step_BL  # the AR step of every token
"""

from orderings.adaptive import Adaptive
from orderings.base import (
    ABSENT,
    GIVEN,
    FixedOrdering,
    Ordering,
    Partition,
    PixelOrdering,
    Seeded,
    Source,
    inverse,
    rank_by,
)
from orderings.grid import Grid, InvalidRequest, Unsupported
from orderings.plan import Plan
from orderings.registry import (
    ADAPTIVE,
    ORDERINGS,
    PARTITIONS,
    UnknownName,
    all_of,
    find_ordering,
    find_partition,
    name_of,
)
from orderings.text import (
    as_options,
    describe,
    describe_partition,
    make_ordering,
    make_partition,
    option_grammar,
    parse_adaptive,
    parse_any_plan,
    parse_ordering,
    parse_partition,
    parse_plan,
)

__all__ = [
    "ABSENT",
    "ADAPTIVE",
    "GIVEN",
    "ORDERINGS",
    "PARTITIONS",
    "Adaptive",
    "FixedOrdering",
    "Grid",
    "InvalidRequest",
    "Ordering",
    "Partition",
    "PixelOrdering",
    "Plan",
    "Seeded",
    "Source",
    "UnknownName",
    "Unsupported",
    "all_of",
    "as_options",
    "describe",
    "describe_partition",
    "find_ordering",
    "find_partition",
    "inverse",
    "make_ordering",
    "make_partition",
    "name_of",
    "option_grammar",
    "parse_adaptive",
    "parse_any_plan",
    "parse_ordering",
    "parse_partition",
    "parse_plan",
    "rank_by",
]

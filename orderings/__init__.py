"""Orderings rank the tokens; partitions cut the sequence of ranks into sets.

ordering, partition = PlanSpec.parse("spiral/cosine:16")
plan = Plan.sample(ordering, partition, Grid((16, 16)), batch=8, generator=Seeded(8))
plan.step_BL  # the AR step of every token
"""

from orderings.adaptive import Adaptive
from orderings.base import ABSENT, GIVEN, FixedOrdering, Ordering, Partition, PixelOrdering, Seeded, inverse, rank_by
from orderings.grid import Grid, InvalidRequest, UnknownName, Unsupported
from orderings.plan import Plan
from orderings.registry import ADAPTIVE, ORDERINGS, PARTITIONS, Registry, name_of
from orderings.text import (
    PlanSpec,
    as_options,
    option_grammar,
    parse_adaptive,
    parse_ordering,
    parse_partition,
    to_text,
)

__all__ = [
    "ABSENT", "ADAPTIVE", "GIVEN", "ORDERINGS", "PARTITIONS", "Adaptive", "FixedOrdering", "Grid", "InvalidRequest",
    "Ordering", "Partition", "PixelOrdering", "Plan", "PlanSpec", "Registry", "Seeded", "UnknownName",
    "Unsupported", "as_options", "inverse", "name_of", "option_grammar",
    "parse_adaptive", "parse_ordering", "parse_partition", "rank_by", "to_text",
]  # fmt: skip

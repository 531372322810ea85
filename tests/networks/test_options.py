"""Options of networks and heads: every number is taken, or refused in one line before anything is allocated."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mar.core.errors import UserError
from mar.heads import HEADS
from mar.networks import NETWORKS

NUMBERS = (10**20, -(10**20), 2**16 + 1, -1, float("nan"), float("inf"), 1e308, (10**20,), (), True)
CASES = [(family, name) for family in (NETWORKS, HEADS) for name in family]


@pytest.mark.parametrize("family, name", CASES, ids=[name for _, name in CASES])
def test_any_number_of_any_option_is_taken_or_refused_in_one_line(family, name):
    for field in fields(family[name].Options):
        for number in NUMBERS:
            try:
                options = family.options(name, {field.name: number})
            except UserError as refusal:
                assert "\n" not in str(refusal) and field.name in str(refusal)
            else:
                taken = getattr(options, field.name)
                for value in taken if isinstance(taken, tuple) else (taken,):
                    assert not isinstance(value, int | float) or -(2**16) <= value <= 2**16


@pytest.mark.parametrize("family", [NETWORKS, HEADS], ids=["networks", "heads"])
def test_defaults_and_published_sizes_are_within_the_bounds(family):
    for name in family:
        family.options(name, {})
    for size in ("base", "large", "huge"):
        NETWORKS.options("masked-transformer", {"size": size})
        NETWORKS.options("causal-transformer", {"size": size})

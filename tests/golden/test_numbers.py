"""Losses, likelihoods, samples, FID and tables are those that revision 7eb5ad5 computed."""

from __future__ import annotations

import pytest

from tests.golden.close import differences
from tests.golden.conftest import recorded

KEYS = [(group, key) for group in ("networks", "measures") for key in recorded(group)]


@pytest.mark.parametrize(("group", "key"), KEYS, ids=[key.replace("/", "+") for _, key in KEYS])
def test_no_number_moves(group, key, golden):
    old, new = golden(group, key)
    if ": sample" in key:
        assert new == old, f"{sum(a != b for a, b in zip(old, new, strict=True))} of {len(old)} images differ"
    else:
        found = differences(old, new)
        assert not found, "\n".join(found[:10])

"""``mar score sets``: the numbers of sets that are tested."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mar.core.errors import UserError
from mar.metrics.sets import check_ks


def run_of(n: int) -> Any:
    return SimpleNamespace(grid=range(n))


def test_numbers_of_sets_leave_a_choice_and_default_ones_fit_the_grid() -> None:
    assert check_ks((), run_of(64)) == (4, 8, 16)
    assert check_ks((), run_of(16)) == (4, 8)
    assert check_ks((15, 2, 2), run_of(16)) == (2, 15)
    for k in (1, 16):
        with pytest.raises(UserError, match=f"above 1 and below the 16 tokens, not {k}"):
            check_ks((4, k), run_of(16))

"""Every shipped recipe, and every cell of every shipped grid, is the recipe that it was at revision 7eb5ad5.

Recorded later, since CHANGELOG.md replaces these grids: mar-table1/gpu, rar-annealing/digits and rar-orders (five
seeds, the published spirals). New: mar-table1/digits.
"""

from __future__ import annotations

import pytest

from tests.golden import record
from tests.golden.conftest import recorded

OLD = recorded("fingerprints")
RECIPES = [key.removeprefix("recipe ") for key in OLD if key.startswith("recipe ")]
GRIDS = [key.removeprefix("grid ") for key in OLD if key.startswith("grid ")]


def quick(name: str) -> bool:
    """Grids of one scale; the other scales resolve through the same code."""
    return name in ("digits", "digits-networks") or (name.endswith("/digits") and name != "networks/digits")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_keeps_its_fingerprint(name):
    assert record.of_recipe(name) == OLD[f"recipe {name}"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if quick(n) else pytest.mark.slow) for n in GRIDS])
def test_the_cells_of_a_grid_keep_their_fingerprints(name):
    assert record.of_grid(name) == OLD[f"grid {name}"]

"""The few internal imports of the golden tests. A change of module paths edits this file and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def recipe_names() -> list[str]:
    """The shipped recipes."""
    from mar.config import recipe_names

    return recipe_names()


def grid_names() -> list[str]:
    """The shipped grids: ablations, and tables as TABLE/SCALE."""
    from mar.experiments.shipped import grid_names

    return grid_names()


def resolved_recipe(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe with every option written out."""
    from mar import build, config

    return build.resolve(config.read(name, overrides)).as_dict()


def recipe_fingerprint(name: str, overrides: Sequence[str] = ()) -> str:
    """The fingerprint of the resolved recipe."""
    from mar import build, config

    return build.resolve(config.read(name, overrides)).fingerprint()


def grid_recipes(name: str, overrides: Sequence[str] = ()) -> list[tuple[dict[str, str], dict[str, Any], str]]:
    """Each cell of a grid: its settings on the axes, its resolved recipe, and the recipe's fingerprint."""
    from mar import build
    from mar.experiments import grid

    cells = grid.read(name, overrides).recipes()
    resolved = [(combination.settings, build.resolve(recipe)) for combination, recipe in cells]
    return [(settings, recipe.as_dict(), recipe.fingerprint()) for settings, recipe in resolved]

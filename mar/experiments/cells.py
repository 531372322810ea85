"""The cells of a grid: the recipe of each, and which plans its model serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mar import build
from mar.config import Recipe
from mar.core.errors import Unsupported, UserError
from mar.data.base import Data
from mar.experiments.axes import Combination
from mar.experiments.evaluate import plan_map
from mar.experiments.grid import GridFile
from mar.experiments.result import PlanMap
from mar.model.model import Model
from mar.training.run_folder import RunFolder
from orderings import PlanSpec, parse_partition


@dataclass(frozen=True)
class Cell:
    """One recipe of a grid.

    Attributes:
        name: its values on the axes; the recipe's name where there are none.
        settings: axis -> the name of its value.
        recipe: resolved.
        fingerprint: of the recipe.
        n_parameters: 0 where the recipe is refused.
        data: what it learns; cells of one data set share it.
        plans: what it is scored under, in canonical text: the plan on its grid, or why it is refused.
    """

    name: str
    settings: dict[str, str]
    recipe: Recipe
    fingerprint: str
    n_parameters: int
    data: Data
    plans: Mapping[str, PlanMap | str]

    @property
    def served(self) -> list[str]:
        """The plans that are not refused; of a cell without any nothing is trained."""
        return [plan for plan, found in self.plans.items() if isinstance(found, PlanMap)]


def cells_of(grid: GridFile) -> list[Cell]:
    """Every cell.

    Raises:
        UserError: a recipe is wrong, or its data are not there.
        Unsupported: the one recipe of a grid without axes, or one of its plans, is impossible.
    """
    recipes = [(combination, build.resolve(recipe)) for combination, recipe in grid.recipes()]
    data: dict[str, Data] = {}
    for _, recipe in recipes:
        source = recipe.data.model_dump_json()
        if source not in data:
            data[source] = build.data(recipe)
    return [_cell(grid, combination, recipe, data[recipe.data.model_dump_json()]) for combination, recipe in recipes]


def check_data(cell: Cell, folder: RunFolder) -> None:
    """Raise UserError if the cell's run was trained on other data: its records would be reported as of these."""
    about = folder.about()
    if about is not None and about.fingerprint not in ("", cell.data.fingerprint):
        raise UserError(
            f"the data of {folder.path} have changed since it was trained ({about.name} {about.fingerprint[:12]}, now "
            f"{cell.data.fingerprint[:12]}): bring them back, or choose another --out"
        )


def _cell(grid: GridFile, combination: Combination, recipe: Recipe, data: Data) -> Cell:
    plans = grid.plans() or _own_plans(grid, recipe)
    try:
        model = build.assemble(recipe, data).model
        n_parameters, found = model.n_parameters, {plan: _served(model, plan, bool(grid.axes)) for plan in plans}
    except Unsupported as refusal:
        if not grid.axes:
            raise
        n_parameters, found = 0, dict.fromkeys(plans, str(refusal))
    name = ", ".join(combination.settings.values()) or recipe.name
    return Cell(name, combination.settings, recipe, recipe.fingerprint(), n_parameters, data, found)


def _own_plans(grid: GridFile, recipe: Recipe) -> list[str]:
    """Along the recipe's own ordering, in the grid's sets or the recipe's own."""
    partitions = [parse_partition(text) for text in grid.partitions] or [build.partition(recipe)]
    return [str(PlanSpec(build.ordering(recipe), partition)) for partition in partitions]


def _served(model: Model, plan: str, may_refuse: bool) -> PlanMap | str:
    try:
        return plan_map(model, plan)
    except Unsupported as refusal:
        if not may_refuse:
            raise
        return str(refusal)

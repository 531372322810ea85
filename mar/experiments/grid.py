"""The grid file: what is trained, under which plans it is scored, and with what.

extends: networks/digits              # optional: another grid, whose keys these replace
given: {data: "???"}                  # what ${given.data} stands for; ???: on the command line; given.out: the folder
prepare: [cache ${given.data} …]      # mar commands that make what the recipes read (mar.experiments.prepare)
recipe: digits                        # a shipped recipe or a file
overrides: [train.iterations=1500]    # of that recipe
axes: {ordering: [raster, random]}    # a model for each combination (mar.experiments.axes); without axes there is one
orderings: [raster, spiral, random]   # what each model is scored under; with axes and without this, its own plan
partitions: [singles, "cosine:16"]    # default singles; without orderings: the sets of each model's own ordering
variants: [{name: 10 steps, options: {steps: 10}}]   # each once along every plan: ways to generate
reference: raster                     # what the others are compared with; default the first, of one seed
matched: parameters                   # or compute, images: what makes the cells comparable (mar.experiments.matched)
select: best                          # score the checkpoint of the lowest validation loss; default the last one
unit: nats                            # an example, in tables and pictures; default bits/dim
nll: {split: test}
fid: {images: 360}                    # null: not asked
speed: {batch: 64}
probe: {}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Literal

from pydantic import Field

from mar import config
from mar.config import Recipe, Scalar, Section
from mar.core.errors import UserError, unknown
from mar.experiments.axes import (
    ORDERS,
    PARTITION,
    PLAN,
    SEED,
    VARIANT,
    Adjustment,
    Combination,
    Value,
    Where,
    combinations,
    named,
)
from mar.experiments.evaluations import (
    FidEvaluation,
    NllEvaluation,
    ProbeEvaluation,
    SetsEvaluation,
    SpeedEvaluation,
    Variant,
    ways,
)
from mar.experiments.published import Published, check_published
from orderings import PlanSpec, parse_ordering, parse_partition, to_text


class GridFile(Section):
    """Recipes, and what is asked of each."""

    name: str
    given: dict[str, str] = Field(default={}, description="values that ${given.NAME} stands for in this file")
    prepare: tuple[str, ...] = Field(default=(), description="mar commands, each of which goes on when run again")
    recipe: str
    overrides: tuple[str, ...] = ()
    axes: dict[str, tuple[Value, ...]] = Field(default={}, description="recipe keys and their values")
    adjust: tuple[Adjustment, ...] = ()
    exclude: tuple[Where, ...] = Field(default=(), description="combinations that are left out")
    only: Where = Field(default={}, description="all that are left in; none: all")
    command: tuple[str, ...] = Field(default=(), description="overrides of the command line; they come last")
    unit: Literal["bits/dim", "nats"] = Field(default="bits/dim", description="of likelihoods in tables and pictures")
    select: Literal["last", "best"] = Field(default="last", description="the checkpoint: last, or best on validation")
    matched: Literal["parameters", "compute", "images"] | None = Field(
        default=None, description="what the cells have in common, so that they may be compared"
    )
    orderings: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = Field(default=(), description="ways to use a model, each once along every plan")
    reference: str | dict[str, Scalar] = Field(
        default="", description="a plan, or values of some axes, others as in the row; the first, of the row's own seed"
    )
    nll: NllEvaluation | None = NllEvaluation()
    fid: FidEvaluation | None = FidEvaluation()
    speed: SpeedEvaluation | None = None
    probe: ProbeEvaluation | None = None
    sets: SetsEvaluation = Field(default=SetsEvaluation(), description="of plans whose partition is optimal")
    published: tuple[Published, ...] = Field(default=(), description="columns of papers, beside the grid's own")
    notes: tuple[str, ...] = Field(default=(), description="printed under the table")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="of the intervals of paired differences")

    def plans(self) -> list[str]:
        """Every ordering under the first partition, then under the second, …, in canonical short text. None: each
        model's own.

        Raises:
            ValueError: an ordering or a partition that does not exist; the message names the nearest.
        """
        pairs = product(map(parse_partition, self.partitions or ("singles",)), map(parse_ordering, self.orderings))
        return list(dict.fromkeys(str(PlanSpec(ordering, partition)) for partition, ordering in pairs))

    def ways(self, plans: Iterable[str]) -> list[tuple[str, Variant | None]]:
        """Plans in variants, as ``mar.experiments.evaluations.ways``."""
        return ways(plans, self.variants)

    def variant(self, name: str) -> Variant | None:
        """The variant of a name; None: the one way that has none."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def combinations(self) -> list[Combination]:
        """The cells. Raises UserError as ``mar.experiments.axes.combinations``."""
        return combinations(self.axes, self.adjust, self.exclude, self.only)

    def recipes(self) -> Iterator[tuple[Combination, Recipe]]:
        """Every cell with its recipe."""
        base = config.read(self.recipe, self.overrides).as_dict()
        for combination in self.combinations():
            yield combination, self._selecting(config.parse(base, [*combination.overrides, *self.command]))

    def _selecting(self, recipe: Recipe) -> Recipe:
        """The recipe, its checkpoints such that the grid can choose among them."""
        if self.select == "last":
            return recipe
        if not recipe.train.validate_every:
            raise UserError("select=best chooses by the validation loss: it wants train.validate_every of at least 1")
        every = recipe.train.validate_every  # each validated state is kept until the best is known
        keep = 1 + recipe.train.iterations // every
        return recipe.model_copy(update={"train": recipe.train.model_copy(update={"save_every": every, "keep": keep})})


def referring(grid: GridFile) -> GridFile:
    """The grid with its reference as settings, checked against its plans and axes.

    Raises:
        UserError: a name that does not exist, or two variants of one. ValueError: a plan that does not exist.
    """
    plans, cells = grid.plans(), grid.combinations()
    if not plans and not grid.axes:
        raise UserError("a grid has axes, orderings, or both: what should its one model be scored under?")
    next(grid.recipes())  # a wrong key is said here
    if twice := [v.name for v in grid.variants if sum(w.name == v.name for w in grid.variants) > 1]:
        raise UserError(f"two variants are called {twice[0]!r}: give one another name")
    names = {axis: {cell.settings[axis] for cell in cells} for axis in grid.axes}
    names |= {PLAN: set(plans)} if plans else {}
    if grid.partitions and not grid.orderings:
        names[PARTITION] = {to_text(parse_partition(text)) for text in grid.partitions}
    names |= {VARIANT: {variant.name for variant in grid.variants}} if grid.variants else {}
    first = {axis: name for axis, name in cells[0].settings.items() if axis != SEED}  # a seed has its own reference
    reference = {**first, **({PLAN: plans[0]} if plans else {})}
    reference |= {VARIANT: grid.variants[0].name} if grid.variants else {}
    if isinstance(grid.reference, dict):
        reference = {axis: str(name) for axis, name in grid.reference.items()}
    elif grid.reference:
        reference = {PLAN: grid.reference}
    if PLAN in reference:
        reference = {**reference, PLAN: str(PlanSpec.parse(reference[PLAN]))}
    every = {axis: named(axis, values) for axis, values in grid.axes.items()}  # those that only leaves out, too
    most = grid.nll.orders if grid.nll is not None else 0
    orders = {ORDERS: [f"mean of {most}", *(str(1 + k) for k in range(most))]} if most else {}
    check_published(grid.published, {**names, **every, **orders})
    for axis, name in reference.items():
        if axis not in names:
            raise unknown("axis of the reference", axis, names)
        if name not in names[axis]:
            raise unknown(f"reference on the axis {axis}", name, names[axis])
    return grid.model_copy(update={"reference": reference})

"""Grid files: the models to train, the plans to score them under, and the metrics to ask.

title: Orders of MNIST                # of the page, which asks the question
question: Which order suits MNIST?
extends: networks/digits              # optional: another grid, whose keys these replace
given: {data: "???"}                  # the value of ${given.data}; ???: on the command line; given.out: the folder
prepare: [cache ${given.data} …]      # mar commands that make the inputs of the recipes (mar.experiments.launch)
recipe: digits                        # a shipped recipe or a file
overrides: [train.iterations=1500]    # of that recipe
axes:                                 # a model for each combination; without axes there is one
  network:                            # a value is a scalar, or several recipe keys; its name is the value of the axis
    - {network: {kind: lstm, width: 96}, train.learning_rate: 3.0e-3}
    - {name: small, network: made}
  ordering: [raster, random]
adjust: [{where: {network: small, ordering: random}, set: {train.iterations: 4000}}]
exclude: [{network: lstm, ordering: [random]}]
orderings: [raster, spiral, random]   # what each model is scored under; with axes and without this, its own plan
partitions: [singles, "cosine:16"]    # default singles; without orderings: the sets of each model's own ordering
variants: [{name: 10 steps, options: {steps: 10}}]   # each once along every plan
reference: raster                     # what the others are compared with; default the first, of one seed
matched: parameters                   # or compute, images: what makes the cells comparable
compare: sound                        # rows worse than a baseline, or of a model that still falls, are only shown
select: best                          # score the checkpoint of the lowest validation loss; default the last one
unit: nats                            # an example, in tables and pictures; default bits/dim
nll: {split: test}                    # a section for each metric of mar.metrics; null: not asked
published:                            # columns of papers, beside the grid's own
  - title: FID, ImageNet 256²
    of: fid                           # our column whose order of rows is compared with theirs
    source: MAR (Li et al. 2024), Table 1
    recalled: true                    # from memory; a dagger and a note say so
    rows: [{where: {ordering: raster, attention: causal}, value: 19.23}]

A shipped grid file begins with its command, what it runs, and ``Time:``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations as pairs_of
from itertools import product
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import Field, ValidationError, create_model, field_validator

from mar import config
from mar.config import Recipe, Scalar, Section
from mar.core.errors import UserError, unknown
from mar.core.files import GRID, check_name
from mar.core.overrides import assigned, value_of
from mar.core.readers import read_yaml, reading
from mar.core.records import plain as plain_of
from mar.experiments.shipped import default_out, extended, grid_name, grid_path
from mar.metrics import METRICS
from mar.metrics.base import Metric, Variant
from orderings import PlanSpec, parse_ordering, parse_partition, to_text

Value = Scalar | dict[str, Any]
RowSelector = dict[str, Scalar | tuple[Scalar, ...]]  # axis -> one of its names, or several
SEED = "seed"  # the axis whose values are trainings of one recipe
PLAN, PARTITION, VARIANT, ORDERS = "plan", "partition", "variant", "orders"  # of rows, beside the axes


def setting(axis: str, value: str) -> str:
    """Return a value as its row is named: a number with its axis, "seed 0"; a variant of weights as "best weights"."""
    if axis == VARIANT:
        return f"{value} weights" if value in ("best", "last") else value
    return f"{axis} {value}" if value[:1].isdigit() else value


def phrase(settings: Mapping[str, Any]) -> str:
    """Return the values as a row is named, parted by points: a value may have commas of its own."""
    return " · ".join(setting(axis, str(value)) for axis, value in settings.items())


class Adjustment(Section):
    """Recipe keys that some cells change after their axes."""

    where: RowSelector
    set: dict[str, Any]


@dataclass(frozen=True)
class Combination:
    """One cell: the name of its value on every axis, and the overrides of the recipe."""

    settings: dict[str, str]
    overrides: tuple[str, ...]


def combinations(
    axes: Mapping[str, Sequence[Value]], adjust: Sequence[Adjustment], exclude: Sequence[RowSelector], only: RowSelector
) -> list[Combination]:
    """Return the cells, the last axis changing fastest. A grid without axes has one cell, without overrides.

    Raises:
        UserError: a value without a name, two of one name, or a condition on an axis or a value that does not exist.
    """
    names = {axis: named(axis, values) for axis, values in axes.items()}
    for where in (*exclude, only, *(adjustment.where for adjustment in adjust)):
        check(where, names)
    found = []
    for chosen in product(*(values.items() for values in names.values())):
        settings = {axis: name for axis, (name, _) in zip(names, chosen, strict=True)}
        if not matches(settings, only) or any(matches(settings, where) for where in exclude):
            continue
        changes = [change for _, value in chosen for change in as_overrides(value)]
        changes += [c for each in adjust if matches(settings, each.where) for c in as_overrides(each.set)]
        found.append(Combination(settings, tuple(changes)))
    if not found:
        raise UserError("the grid has no cell: only and exclude leave none")
    return found


def as_overrides(keys: Mapping[str, Any]) -> list[str]:
    """Return ``{network: {kind: made, widths: [8]}}`` as ``network.kind=made`` and ``network.widths=[8]``."""
    return [f"{key}={json.dumps(value)}" for key, value in _flat(keys, "")]


def _flat(keys: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key in sorted(keys, key=lambda key: key != "kind"):  # a kind drops the options that stand before it
        if isinstance(keys[key], Mapping):
            yield from _flat(keys[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", keys[key]


def named(axis: str, values: Sequence[Value]) -> dict[str, dict[str, Any]]:
    """Return the recipe keys of each value of an axis by the value's name."""
    found: dict[str, dict[str, Any]] = {}
    for value in values:
        name = _name(axis, value)
        if name in found:
            raise UserError(f"two values of the axis {axis} are called {name!r}: give one another name")
        found[name] = {k: v for k, v in value.items() if k != "name"} if isinstance(value, Mapping) else {axis: value}
    if not found:
        raise UserError(f"the axis {axis} has no values")
    return found


def _name(axis: str, value: Value) -> str:
    said = value.get("name", value.get(axis)) if isinstance(value, Mapping) else value
    if isinstance(said, Mapping):
        said = said.get("kind")
    if said is None:
        raise UserError(f"a value of the axis {axis} has no name: add name: … to {value}")
    return str(said)


def check(where: RowSelector, names: Mapping[str, Collection[str]]) -> None:
    """Refuse a condition on an axis or a name that is not among ``names``: axis -> names of its values."""
    for axis, wanted in where.items():
        if axis not in names:
            raise unknown("axis", axis, names)
        for name in several(wanted):
            if name not in names[axis]:
                raise unknown(f"value of the axis {axis}", name, names[axis])


def matches(settings: Mapping[str, str], where: RowSelector) -> bool:
    """True if the settings (axis -> name) have one of the names on every axis of ``where``."""
    return all(settings.get(axis) in several(names) for axis, names in where.items())


def several(names: Scalar | Sequence[Scalar]) -> list[str]:
    """Return one name or several as a list."""
    return [str(name) for name in names] if isinstance(names, list | tuple) else [str(names)]


Better = Literal["lower", "higher"]
Of = Literal["nll", "fid", "inception_score", "probe", "images_per_second"]
OURS: dict[Of, tuple[str, Better]] = {
    "nll": ("NLL", "lower"),
    "fid": ("FID", "lower"),
    "inception_score": ("IS", "higher"),
    "probe": ("linear probe", "higher"),
    "images_per_second": ("images/s", "higher"),
}


class PublishedRow(Section):
    """A figure of the rows whose settings contain ``where``."""

    where: RowSelector = Field(min_length=1)
    value: float = Field(allow_inf_nan=False)

    @field_validator("where")
    @classmethod
    def _canonical(cls, where: RowSelector) -> RowSelector:
        """Return the condition with plans in canonical short text."""
        if PLAN not in where:
            return where
        return {**where, PLAN: tuple(str(PlanSpec.parse(plan)) for plan in several(where[PLAN]))}


class Published(Section):
    """One column of a paper."""

    title: str = Field(min_length=1, description="what it is, of which data")
    of: Of = Field(description="our column whose order of rows is compared with it")
    source: str = Field(min_length=1, description="the paper and its table")
    recalled: bool = Field(default=False, description="written down from memory, not re-read")
    same: bool = Field(default=False, description="of the same data and measure as ours; else only orders are compared")
    better: Better | None = Field(default=None, description="which way is better; None: as in our column")
    rows: tuple[PublishedRow, ...] = Field(min_length=1)

    @property
    def direction(self) -> Better:
        """The direction of better figures."""
        return self.better or OURS[self.of][1]

    def figure(self, settings: Mapping[str, str]) -> float | None:
        """Return the figure of a row of the table; None where the paper has none."""
        return next((row.value for row in self.rows if matches(settings, row.where)), None)

    def check(self, names: Mapping[str, Collection[str]]) -> None:
        """Refuse figures that no row could have, and two for one row, by what tells rows apart -> its names."""
        try:
            for row in self.rows:
                check(row.where, {name: known for name, known in names.items() if name != SEED})  # of every seed
        except UserError as error:
            raise UserError(f"published {self.title!r}: {error}") from None
        for one, other in pairs_of((row.where for row in self.rows), 2):
            if all(set(several(one[axis])) & set(several(other[axis])) for axis in one.keys() & other.keys()):
                raise UserError(f"published {self.title!r}: {one} and {other} may be one row: name more axes in both")


def published_of(grid: Mapping[str, Any]) -> tuple[Published, ...]:
    """Return the published columns of a resolved grid."""
    return tuple(Published.model_validate(each) for each in grid.get("published", ()))


class GridFile(Section):
    """Recipes, and the metrics asked of each. ``grid_type`` adds a section for each metric."""

    name: str
    title: str = Field(default="", description="of the page")
    question: str = Field(default="", description="that the grid answers: the head of the page")
    given: dict[str, str] = Field(default={}, description="values that ${given.NAME} stands for in this file")
    prepare: tuple[str, ...] = Field(default=(), description="mar commands, each of which goes on when run again")
    recipe: str
    overrides: tuple[str, ...] = ()
    axes: dict[str, tuple[Value, ...]] = Field(default={}, description="recipe keys and their values")
    adjust: tuple[Adjustment, ...] = ()
    exclude: tuple[RowSelector, ...] = Field(default=(), description="combinations that are left out")
    only: RowSelector = Field(default={}, description="all that are left in; none: all")
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
    compare: Literal["all", "sound"] = Field(
        default="all", description="sound: rows worse than a baseline or still falling have no difference, best or τ"
    )
    published: tuple[Published, ...] = Field(default=(), description="columns of papers, beside the grid's own")
    notes: tuple[str, ...] = Field(default=(), description="printed under the table")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="of the intervals of paired differences")

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        check_name(name, "the grid's name")
        return name

    def plans(self) -> list[PlanSpec]:
        """Return every ordering under the first partition, then under the second, …. Empty: each model's own."""
        pairs = product(map(parse_partition, self.partitions or ("singles",)), map(parse_ordering, self.orderings))
        return list(dict.fromkeys(PlanSpec(ordering, partition) for partition, ordering in pairs))

    def metrics(self) -> dict[str, Metric]:
        """Return each metric that is asked, in the order of ``METRICS``."""
        asked = {name: options for name in METRICS if (options := getattr(self, name, None)) is not None}
        return {name: METRICS[name](options, asked) for name, options in asked.items()}

    @property
    def orders(self) -> int:
        """Random orders that all images share in scoring; 0: each image has its own."""
        return getattr(getattr(self, "nll", None), "orders", 0)

    def variant(self, name: str) -> Variant | None:
        """Return the variant of a name; None for a grid without variants."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def combinations(self) -> list[Combination]:
        """Return the cells. Raises UserError as ``combinations``."""
        return combinations(self.axes, self.adjust, self.exclude, self.only)

    def recipes(self) -> Iterator[tuple[Combination, Recipe]]:
        """Yield every cell with its recipe; to choose the best checkpoint, each validated one is kept."""
        base = config.read(self.recipe, self.overrides).as_dict()
        for combination in self.combinations():
            recipe = config.parse(base, [*combination.overrides, *self.command])
            if self.select == "best":
                if not (every := recipe.train.validate_every):
                    raise UserError("select=best chooses by the validation loss: it wants train.validate_every >= 1")
                kept = {"save_every": every, "keep": 1 + recipe.train.iterations // every}
                recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=kept)})
            yield combination, recipe


def grid_type() -> type[GridFile]:
    """Return the type of a grid file: GridFile with a section for each registered metric; None: it is not asked."""
    sections: dict[str, Any] = {name: (metric.Options | None, metric.default) for name, metric in METRICS.items()}
    return create_model("Grid", __base__=GridFile, **sections)


def referring(grid: GridFile) -> GridFile:
    """Return the grid with its reference as settings, checked against its plans and axes.

    Raises:
        UserError: a name that does not exist, or two variants of one. ValueError: a plan that does not exist.
    """
    plans, cells = [str(plan) for plan in grid.plans()], grid.combinations()
    if not plans and not grid.axes:
        raise UserError("a grid has axes, orderings, or both: what should its one model be scored under?")
    next(grid.recipes())  # report a wrong recipe key now
    if twice := [v.name for v in grid.variants if sum(w.name == v.name for w in grid.variants) > 1]:
        raise UserError(f"two variants are called {twice[0]!r}: give one another name")
    names: dict[str, Collection[str]] = {axis: {cell.settings[axis] for cell in cells} for axis in grid.axes}
    first = {axis: name for axis, name in cells[0].settings.items() if axis != SEED}  # a seed has its own reference
    if plans:
        names[PLAN], first[PLAN] = set(plans), plans[0]
    elif grid.partitions:
        names[PARTITION] = {to_text(parse_partition(text)) for text in grid.partitions}
    if grid.variants:
        names[VARIANT], first[VARIANT] = {variant.name for variant in grid.variants}, grid.variants[0].name
    every = {axis: named(axis, values) for axis, values in grid.axes.items()}  # those that only leaves out, too
    counts = range(1, 1 + grid.orders)
    orders = {ORDERS: [f"mean of {grid.orders}", *map(str, counts)]} if grid.orders else {}
    for column in grid.published:
        column.check({**names, **every, **orders})
    reference = first
    if grid.reference:
        given = grid.reference if isinstance(grid.reference, dict) else {PLAN: grid.reference}
        reference = {axis: str(name) for axis, name in given.items()}
    if PLAN in reference:
        reference = {**reference, PLAN: str(PlanSpec.parse(reference[PLAN]))}
    for axis, name in reference.items():
        if axis not in names:
            raise unknown("axis of the reference", axis, names)
        if name not in names[axis]:
            raise unknown(f"reference on the axis {axis}", name, names[axis])
    return grid.model_copy(update={"reference": reference})


def read(name: str, overrides: Sequence[str] = (), out: Path | None = None) -> GridFile:
    """Return the grid of a file or a shipped name.

    Args:
        overrides: ``key=value``, of the grid (``fid.images=1000``), of one of its axes, or else of its recipes
            (``train.iterations=9``). An axis takes the values given, and a note says so: ``seed=[0,1,2,3]``, or the
            name of one of its values. ``key+=[value]`` adds to a list of the grid or to an axis: beside values of
            several keys, a text takes the place of the first value's name in a copy of that value.
        out: the folder of the grid, ``given.out``; None: the default.

    Raises:
        UserError: no such grid; a key, a value, a plan or the YAML is wrong.
    """
    path, known = grid_path(name), grid_type()
    base = {"name": grid_name(path), "given": {"out": str(out or default_out("${name}"))}}
    try:
        file = extended(path)
        content, given = OmegaConf.merge(base, file), file.get("axes")
        axes = {str(axis) for axis, values in given.items() if values} if isinstance(given, DictConfig) else set()
        of_lists = [text for text in overrides if _list_key(text, axes)]
        of_grid = [text for text in overrides if text not in of_lists and _key(text) in known.model_fields]
        of_recipe = [text for text in overrides if text not in of_lists and text not in of_grid]
        for key in map(_key, of_recipe):
            if key not in Recipe.model_fields:
                raise unknown("key of the grid or its recipes", key, {*known.model_fields, *Recipe.model_fields})
        content = OmegaConf.merge(content, OmegaConf.create(plain_of(assigned(of_grid, "an override"))))
        plain: Any = OmegaConf.to_container(content, resolve=True, throw_on_missing=True)
        if not isinstance(plain["given"], dict):
            raise UserError("given is a mapping: override given.NAME=VALUE")
        if "given.out" not in OmegaConf.to_yaml(content):
            del plain["given"]["out"]
        for text in of_lists:
            known.model_validate(plain)  # what is changed is a grid
            _set_list(plain, text, _list_key(text, axes))
        plain["command"] = [*(plain.get("command") or []), *of_recipe]
        grid = referring(known.model_validate(plain))
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise UserError(f"{path} needs {key}=…: give it after the name of the grid") from None
    except ValidationError as error:
        raise UserError(_readable(path, error)) from None
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    _check_names(grid.axes, [text.partition("=")[0] for text in of_recipe])
    return grid


def stored(out: Path) -> GridFile:
    """Return the grid of a folder. Raise UserError: its file is damaged."""
    with reading(out / GRID, "the grid of an ablation"):
        return grid_type().model_validate(OmegaConf.to_container(read_yaml(out / GRID, "the grid of an ablation")))


def _key(override: str) -> str:
    """Return the outermost key of ``key.of.a.section=value``."""
    return override.partition("=")[0].split(".")[0]


def _list_key(override: str, axes: Collection[str]) -> str:
    """Return the key of ``key+=values``, or the axis of ``axis=values``; empty: neither."""
    key = override.partition("=")[0]
    axis = key.removesuffix("+").removeprefix("axes.").removesuffix(".kind")
    if axis in axes:
        return axis
    return key.removesuffix("+") if key.endswith("+") else ""


def _set_list(plain: dict[str, Any], override: str, key: str) -> None:
    """Add the values of an override to a list of the grid, or let an axis have these values alone."""
    text, adds = override.partition("=")[2], override.partition("=")[0].endswith("+")
    given = value_of(text)
    values = given if isinstance(given, list) else [given]
    axes = plain.get("axes") or {}
    if key not in axes:
        if not (isinstance(plain.get(key, []), list) and key in GridFile.model_fields):
            raise unknown("list of the grid", key, {*axes, "orderings", "partitions", "variants", "overrides", "notes"})
        plain[key] = [*(plain.get(key) or []), *values]
        return
    if not isinstance(axes[key], list):
        axes[key] = [axes[key]]
    there = {_name(key, value): value for value in axes[key]}
    first: Any = axes[key][0] if axes[key] else None  # beside values of several keys, a text is a new name in a copy
    new = {}
    for value in values:
        copied = isinstance(first, dict) and not isinstance(value, dict)
        made = _renamed(first, _name(key, first), str(value)) if copied else value
        new[_name(key, value)] = there.get(_name(key, value), made)
    if adds:
        axes[key] = [*axes[key], *new.values()]
        return
    # Values that conditions or published figures name stay in the file; ``only`` leaves them out.
    wheres = [*(each["where"] for each in plain.get("adjust") or ()), *(plain.get("exclude") or ())]
    wheres += [row["where"] for column in plain.get("published") or () for row in column["rows"]]
    kept = {name for where in wheres for name in several(where.get(key, ()))} & there.keys() - new.keys()
    axes[key] = [*new.values(), *(value for name, value in there.items() if name in kept)]
    only = {axis: names for axis, names in (plain.get("only") or {}).items() if axis != key}
    plain["only"] = {**only, key: list(new)} if kept else only
    plain["notes"] = [
        *(plain.get("notes") or []),
        f"The command line sets the axis {key} to {', '.join(new)}; the grid has {', '.join(there)}.",
    ]
    reference = plain.get("reference")
    if isinstance(reference, dict) and str(reference.get(key)) not in new:
        plain["reference"] = {axis: name for axis, name in reference.items() if axis != key}


def _renamed(value: Any, name: str, new: str) -> Any:
    """Return a copy of a nested value with ``new`` in the place of the text ``name``."""
    if isinstance(value, dict):
        return {key: _renamed(inner, name, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, name, new) for inner in value]
    return new if value == name else value


def _check_names(axes: Mapping[str, Sequence[Value]], overridden: Collection[str]) -> None:
    """Refuse an override of the one key in which values of an axis differ: their rows would share a model."""
    for axis, values in axes.items():
        keys = [{k.removesuffix(".kind"): str(v) for k, v in _flat(v, "")} for v in named(axis, values).values()]
        for key in (text.removesuffix(".kind") for text in overridden):
            left = {tuple(sorted(item for item in value.items() if item[0] != key)) for value in keys}
            if any(key in value for value in keys) and len(left) < len(keys):
                raise UserError(
                    f"{key}=… would make one model of several values of the axis {axis}: choose values of the axis "
                    f"instead, {axis}=… or only.{axis}=…"
                )


def _readable(path: Path, error: ValidationError) -> str:
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")  # a misspelt key is missing, too
    *section, key = (str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{path}: {'.'.join([*section, key])}: {first['msg']} (got {first['input']!r})"
    if section and section[0] == "published":
        known = PublishedRow if "rows" in section else Published
    else:
        known = METRICS[section[0]].Options if section and section[0] in METRICS else grid_type()
    names = [".".join([*section, name]) for name in known.model_fields]
    return f"{path}: {unknown('grid key', '.'.join([*section, key]), names)}"

"""The axes of a grid: every combination of their values is a cell, a recipe of its own.

A value is a scalar, for the recipe key that the axis is named after, or a mapping of several recipe keys, so that each
network brings its learning rate along. It may have a ``name``; otherwise its name is what it says about the axis's key.

    axes:
      network:
        - {network: {kind: lstm, width: 96}, train.learning_rate: 3.0e-3}
        - made
      ordering: [raster, random]
    adjust:
      - where: {network: made, ordering: random}
        set: {train.iterations: 4000}
    exclude:
      - {network: lstm, ordering: [random]}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from mar.config import Scalar, Section
from mar.core.errors import UserError, unknown

Value = Scalar | dict[str, Any]


Where = dict[str, Scalar | tuple[Scalar, ...]]  # axis -> one of its names, or several


SEED = "seed"  # the axis whose values are trainings of one recipe


PLAN, PARTITION, VARIANT, ORDERS = "plan", "partition", "variant", "orders"  # of rows, beside the axes


class Adjustment(Section):
    """Recipe keys that some cells set otherwise, after their axes."""

    where: Where
    set: dict[str, Any]


@dataclass(frozen=True)
class Combination:
    """One cell: the name of its value on every axis, and what these change in the recipe."""

    settings: dict[str, str]
    overrides: tuple[str, ...]


def combinations(
    axes: Mapping[str, Sequence[Value]], adjust: Sequence[Adjustment], exclude: Sequence[Where], only: Where
) -> list[Combination]:
    """The cells, the last axis changing fastest. Without axes there is one, which changes nothing.

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
        changes = [change for _, (_, value) in zip(names, chosen, strict=True) for change in value]
        changes += [c for each in adjust if matches(settings, each.where) for c in as_overrides(each.set)]
        found.append(Combination(settings, tuple(changes)))
    if not found:
        raise UserError("the grid has no cell: only and exclude leave none")
    return found


def as_overrides(keys: Mapping[str, Any]) -> list[str]:
    """``{network: {kind: made, widths: [8]}}`` as ``network.kind=made`` and ``network.widths=[8]``."""
    return [f"{key}={json.dumps(value)}" for key, value in _flat(keys, "")]


def _flat(keys: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key in sorted(keys, key=lambda key: key != "kind"):  # a kind drops the options that stand before it
        if isinstance(keys[key], Mapping):
            yield from _flat(keys[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", keys[key]


def named(axis: str, values: Sequence[Value]) -> dict[str, list[str]]:
    """name -> overrides of each value of an axis."""
    found: dict[str, list[str]] = {}
    for value in values:
        keys = {k: v for k, v in value.items() if k != "name"} if isinstance(value, Mapping) else {axis: value}
        name = _name(axis, value)
        if name in found:
            raise UserError(f"two values of the axis {axis} are called {name!r}: give one another name")
        found[name] = as_overrides(keys)
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


def check(where: Where, names: Mapping[str, Collection[str]]) -> None:
    """Refuse a condition on an axis or a name that is not among ``names``: axis -> names of its values."""
    for axis, wanted in where.items():
        if axis not in names:
            raise unknown("axis", axis, names)
        for name in several(wanted):
            if name not in names[axis]:
                raise unknown(f"value of the axis {axis}", name, names[axis])


def matches(settings: Mapping[str, str], where: Where) -> bool:
    """Whether the settings (axis -> name) have one of the names on every axis of ``where``."""
    return all(settings.get(axis) in several(names) for axis, names in where.items())


def several(names: Scalar | Sequence[Scalar]) -> list[str]:
    """One name or several, as a list."""
    return [str(name) for name in names] if isinstance(names, list | tuple) else [str(names)]

"""What a table says over training seeds: the mean of each row over the axis ``seed``, its spread, and tests over seeds.

A test over images speaks of trained models; one over seeds speaks of recipes, and needs several of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mar.experiments.axes import SEED
from mar.experiments.compare import holm, p_value
from mar.experiments.result import AblationResult, Row


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of one seed, n - 1 in the denominator) over ``n`` seeds."""

    n: int
    mean: float
    deviation: float


@dataclass(frozen=True)
class SeedRow:
    """Rows that differ in their seed alone. A figure is None unless every seed has it.

    Attributes:
        settings: values on the other axes.
        plan: canonical short text.
        nll: bits/dim, or nats per image where there are no bits/dim.
        difference: to the reference of the same seed, in the same unit.
        p_holm: two-sided paired t-test over seeds that the mean difference is zero, Holm-corrected over this table.
        fid, images_per_second, probe: likewise.
    """

    settings: dict[str, str]
    plan: str
    nll: Spread | None
    difference: Spread | None
    p_holm: float | None
    fid: Spread | None
    images_per_second: Spread | None
    probe: Spread | None


def over_seeds(result: AblationResult) -> tuple[SeedRow, ...]:
    """Every row over its seeds; nothing without an axis of at least two."""
    groups = [rows for rows in by_seed(result.rows) if SEED in rows[0].settings]
    if max(map(len, groups), default=0) < 2:
        return ()
    found = [_over(rows) for rows in groups]
    tested = [k for k, row in enumerate(found) if row.p_holm is not None]
    for k, adjusted in zip(tested, holm([found[k].p_holm or 0.0 for k in tested]), strict=True):
        found[k] = replace(found[k], p_holm=adjusted)
    return tuple(found)


def by_seed(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that differ in their seed alone, together."""
    groups: dict[tuple[str, frozenset[tuple[str, str]]], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.plan, frozenset(unseeded(row).items())), []).append(row)
    return list(groups.values())


def unseeded(row: Row) -> dict[str, str]:
    """The settings without the seed."""
    return {axis: name for axis, name in row.settings.items() if axis != SEED}


def _over(rows: Sequence[Row]) -> SeedRow:
    """One row of the table, its p-value not corrected yet."""
    differences = values_of(rows, _difference)
    return SeedRow(
        settings=unseeded(rows[0]),
        plan=rows[0].plan,
        nll=_spread(values_of(rows, nll_of)),
        difference=_spread(differences),
        p_holm=p_value(np.asarray(differences)) if len(differences) > 1 else None,
        fid=_spread(values_of(rows, lambda row: row.images and row.images.fid)),
        images_per_second=_spread(values_of(rows, lambda row: row.images_per_second)),
        probe=_spread(values_of(rows, lambda row: row.probe and row.probe.accuracy)),
    )


def nll_of(row: Row) -> float | None:
    """Bits/dim, or nats per image where there are no bits/dim."""
    likelihood = row.likelihood
    if likelihood is None:
        return None
    return likelihood.nats_per_image if likelihood.bits_per_dim is None else likelihood.bits_per_dim


def _difference(row: Row) -> float | None:
    difference = row.difference
    if difference is None:
        return None
    return difference.nats_per_image if difference.bits_per_dim is None else difference.bits_per_dim


def values_of(rows: Sequence[Row], value: Callable[[Row], float | None]) -> list[float]:
    """A figure of every row; empty if one lacks it."""
    found = [value(row) for row in rows]
    return [] if None in found else [each for each in found if each is not None]


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0
    return Spread(len(values), mean, deviation)

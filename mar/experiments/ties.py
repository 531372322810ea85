"""The best rows of a column, and those that a test does not tell from the best.

A row is compared with the rows that were scored alike: the same data, as many images, one kind of figure. It is tied if
a paired t-test of its difference to the best of these is not rejected after Holm's correction over the table. The best
was chosen by looking at the same figures, which favours it: there are rather too few ties than too many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mar.experiments.grid import SEED
from mar.experiments.result import AblationResult, Row
from mar.experiments.statistics import SeedRow, by_seed, nll_of, over_seeds, settings_without_seed, values_of
from mar.metrics.statistics import holm, kind_of, p_value

Key = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Ties:
    """The standing of rows in a column.

    Attributes:
        best: the best of those scored alike; a row that nothing can be compared with is none.
        p_holm: of every row that was tested against the best: two-sided paired t-test, Holm-corrected over them all.
        level: a row is tied where its p is above.
    """

    best: frozenset[Key] = frozenset()
    p_holm: dict[Key, float] = field(default_factory=dict)
    level: float = 0.05

    def is_best(self, row: Row | SeedRow) -> bool:
        return _key(row.plan, row.settings) in self.best

    def p_of(self, row: Row | SeedRow) -> float | None:
        """Of the difference to the best; None for the best and for what was not tested."""
        return self.p_holm.get(_key(row.plan, row.settings))

    def is_tied(self, row: Row | SeedRow) -> bool:
        p = self.p_of(row)
        return p is not None and p > self.level

    def standing(self, row: Row | SeedRow) -> str | None:
        """In a word."""
        return "best" if self.is_best(row) else "tied" if self.is_tied(row) else None


@dataclass(frozen=True)
class _Candidate:
    """A row of a column.

    Attributes:
        alike: rows of which this is equal were scored alike.
        figure: lower is better.
        samples_N: what is paired, by image or seed.
    """

    key: Key
    alike: Hashable
    figure: float
    samples_N: Sequence[float] = ()


def nll_ties(result: AblationResult) -> Ties:
    """Of the NLL of single trainings: tests over images, unless the grid has seeds, over which they would say more."""
    tested = not over_seeds(result)
    found = []
    for row in result.rows:
        figure = nll_of(row)
        if row.likelihood is not None and figure is not None:
            samples_N = row.likelihood.nats_of_image if tested else ()
            found.append(_Candidate(_key(row.plan, row.settings), _nll_alike(result, row), figure, samples_N))
    return _ties(found, _level(result))


def fid_ties(result: AblationResult) -> Ties:
    """Of the FID of single trainings: the best alone, for one figure of a whole set of images has nothing to pair."""
    rows = [row for row in result.rows if row.images is not None]
    return _ties([_Candidate(_key(r.plan, r.settings), _fid_alike(result, r), _fid(r) or 0.0) for r in rows], 0.0)


def nll_ties_over_seeds(result: AblationResult) -> Ties:
    """Of the mean NLL over seeds: tests over seeds, rows of one seed paired."""
    return _ties_over_seeds(result, nll_of, _nll_alike)


def fid_ties_over_seeds(result: AblationResult) -> Ties:
    """Of the mean FID over seeds, likewise."""
    return _ties_over_seeds(result, _fid, _fid_alike)


def _ties_over_seeds(
    result: AblationResult,
    figure: Callable[[Row], float | None],
    alike: Callable[[AblationResult, Row], Hashable],
) -> Ties:
    found = []
    for rows in by_seed(result.rows):
        rows.sort(key=lambda row: row.settings.get(SEED, ""))
        samples_N, kinds = values_of(rows, figure), {alike(result, row) for row in rows}
        if samples_N and len(kinds) == 1:
            seeds, mean = tuple(row.settings.get(SEED) for row in rows), math.fsum(samples_N) / len(samples_N)
            found.append(
                _Candidate(_key(rows[0].plan, settings_without_seed(rows[0])), (*kinds, *seeds), mean, samples_N)
            )
    return _ties(found, _level(result))


def _ties(candidates: Sequence[_Candidate], level: float) -> Ties:
    """The best of each class of rows that were scored alike, and the tests of the others against it."""
    classes: dict[Hashable, list[_Candidate]] = {}
    for each in candidates:
        classes.setdefault(each.alike, []).append(each)
    best, p_values = set(), {}
    for several in classes.values():
        lead = min(several, key=lambda each: each.figure)
        if len(several) > 1:
            best |= {each.key for each in several if each.figure == lead.figure}
        p_values |= {each.key: _p(each, lead) for each in several if each.figure > lead.figure and _paired(each, lead)}
    return Ties(frozenset(best), dict(zip(p_values, holm(list(p_values.values())), strict=True)), level)


def _paired(one: _Candidate, other: _Candidate) -> bool:
    return len(one.samples_N) == len(other.samples_N) > 1


def _p(one: _Candidate, other: _Candidate) -> float:
    return p_value(np.subtract(one.samples_N, other.samples_N))


def _key(plan: str, settings: dict[str, str]) -> Key:
    return plan, frozenset(settings.items())


def _level(result: AblationResult) -> float:
    return 1.0 - result.grid.get("confidence", 0.95)


def _fid(row: Row) -> float | None:
    return row.images and row.images.fid


def _nll_alike(result: AblationResult, row: Row) -> Hashable:
    """The data, the images, the kind; without bits/dim also the tokenizer: the NLL of latents is of what it makes."""
    likelihood = row.likelihood
    if likelihood is None:
        return None
    latents = _of_recipe(result, row, "tokenizer") if likelihood.bits_per_dim is None else ""
    return _of_recipe(result, row, "data"), likelihood.n_images, kind_of(likelihood), latents


def _fid_alike(_: AblationResult, row: Row) -> Hashable:
    """The images and the extractor; what real images score against them says whether the real ones are the same."""
    images = row.images
    if images is None:
        return None
    floor = f"{images.noise_floor.fid:.2f} of {images.noise_floor.n_images}"
    return images.generated.n_images, images.n_real, images.split, images.extractor, floor


def _of_recipe(result: AblationResult, row: Row, key: str) -> str:
    model = result.model_of(row)
    return "" if model is None else str(model.recipe.get(key))

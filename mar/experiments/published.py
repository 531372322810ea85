"""Columns of papers, to stand beside a grid's own: figures of other data and another scale, compared in order alone.

published:
  - title: FID, ImageNet 256²
    of: fid                               # whose order is compared with theirs
    source: MAR (Li et al. 2024), Table 1
    recalled: true                        # from memory; a dagger and a note say so
    rows:
      - {where: {ordering: raster, attention: causal}, value: 19.23}
      - {where: {ordering: random}, value: 13.07}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations
from typing import Any, Literal

from pydantic import Field, field_validator

from mar.config import Section
from mar.core.errors import UserError
from mar.experiments.axes import PLAN, SEED, Where, check, matches, several
from orderings import PlanSpec

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
    """A figure, and which rows it stands in: those whose settings contain ``where``."""

    where: Where = Field(min_length=1)
    value: float = Field(allow_inf_nan=False)

    @field_validator("where")
    @classmethod
    def _canonical(cls, where: Where) -> Where:
        """The same, plans in canonical short text."""
        if PLAN not in where:
            return where
        return {**where, PLAN: tuple(str(PlanSpec.parse(plan)) for plan in several(where[PLAN]))}


class Published(Section):
    """One column of a paper."""

    title: str = Field(min_length=1, description="what it is, of which data")
    of: Of = Field(description="our column whose order of rows is compared with it")
    source: str = Field(min_length=1, description="the paper and its table")
    recalled: bool = Field(default=False, description="written down from memory, not re-read")
    better: Better | None = Field(default=None, description="which way is better; None: as in our column")
    rows: tuple[PublishedRow, ...] = Field(min_length=1)

    @property
    def direction(self) -> Better:
        """Which way is better."""
        return self.better or OURS[self.of][1]

    def figure(self, settings: Mapping[str, str]) -> float | None:
        """The figure of a row of the table; None where the paper has none."""
        return next((row.value for row in self.rows if matches(settings, row.where)), None)


def published_of(grid: Mapping[str, Any]) -> tuple[Published, ...]:
    """The columns of a resolved grid, as a result holds it."""
    return tuple(Published.model_validate(each) for each in grid.get("published", ()))


def check_published(published: Collection[Published], names: Mapping[str, Collection[str]]) -> None:
    """Refuse figures that no row could have, and two for one row.

    Args:
        names: what tells rows apart (an axis, the plan, …) -> what each can be called; a figure is of every seed.

    Raises:
        UserError: it names the column, and the nearest name that exists.
    """
    names = {name: known for name, known in names.items() if name != SEED}
    for column in published:
        try:
            for row in column.rows:
                check(row.where, names)
        except UserError as error:
            raise UserError(f"published {column.title!r}: {error}") from None
        for one, other in combinations((row.where for row in column.rows), 2):
            if _overlap(one, other):
                raise UserError(f"published {column.title!r}: {one} and {other} may be one row: name more axes in both")


def _overlap(one: Where, other: Where) -> bool:
    """Whether one row can match both."""
    return all(set(several(one[axis])) & set(several(other[axis])) for axis in one.keys() & other.keys())

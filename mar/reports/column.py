"""A column of a table: what every form of it shows of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from mar.experiments.result import Row
from mar.experiments.statistics import SeedRow
from mar.experiments.ties import Ties

MISSING = "–"
TIED = "≈"  # after a figure that is not told apart from the best; the notes say by what test
ARROWS = {"": "", "lower": "↓", "higher": "↑"}

R = TypeVar("R", bound=Row | SeedRow)


def p_text(p: float | None) -> str:
    """A p-value as it is read: never a bare zero."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True)
class ColumnOf(Generic[R]):
    """A column of rows of one kind.

    Attributes:
        title: its head, with unit.
        better: which way is better; "": neither.
        value: the number or text of a row; None where it has none.
        digits: after the point, in a table that is read.
        text: what a reader sees, where it is more than the number.
        sign: show a plus.
        words: its values are no numbers.
        ties: which rows are best and tied, where that is more than the extreme of the column.
    """

    title: str
    value: Callable[[R], float | int | str | None]
    better: Literal["", "lower", "higher"] = ""
    digits: int = 0
    text: Callable[[R], str] | None = None
    sign: bool = False
    words: bool = False
    ties: Ties | None = None

    @property
    def head(self) -> str:
        """The title with an arrow towards better."""
        return f"{self.title} {ARROWS[self.better]}".strip()

    @property
    def numeric(self) -> bool:
        return not self.words

    def show(self, row: R) -> str:
        """The cell that a reader sees."""
        value = self.value(row)
        if value is None:
            return MISSING
        plus = "+" if self.sign else ""
        number = f"{value:{plus}.{self.digits}f}" if isinstance(value, float) else str(value)
        shown = number if self.text is None else self.text(row)
        return f"{shown} {TIED}" if self.ties is not None and self.ties.is_tied(row) else shown


Column = ColumnOf[Row]


def best_rows(column: ColumnOf[R], rows: Sequence[R]) -> set[int]:
    """The numbers of the rows that read best in a column with a direction."""
    if column.ties is not None:
        return {k for k, row in enumerate(rows) if column.ties.is_best(row)}
    values = {k: v for k, row in enumerate(rows) if isinstance(v := column.value(row), float | int)}
    if not column.better or len(values) < 2:
        return set()
    best = (min if column.better == "lower" else max)(values.values())
    return {k for k, value in values.items() if value == best}

"""A column of a table: what every form of it shows of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mar.ablation.result import Row

MISSING = "–"
ARROWS = {"": "", "lower": "↓", "higher": "↑"}


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: its head, with unit.
        better: which way is better; "": neither.
        value: the number or text of a row; None where it has none.
        digits: after the point, in a table that is read.
        text: what a reader sees, where it is more than the number.
        sign: show a plus.
        words: its values are no numbers.
    """

    title: str
    value: Callable[[Row], float | int | str | None]
    better: Literal["", "lower", "higher"] = ""
    digits: int = 0
    text: Callable[[Row], str] | None = None
    sign: bool = False
    words: bool = False

    @property
    def head(self) -> str:
        """The title with an arrow towards better."""
        return f"{self.title} {ARROWS[self.better]}".strip()

    @property
    def numeric(self) -> bool:
        return not self.words

    def show(self, row: Row) -> str:
        """The cell that a reader sees."""
        value = self.value(row)
        if value is None:
            return MISSING
        if self.text is not None:
            return self.text(row)
        plus = "+" if self.sign else ""
        return f"{value:{plus}.{self.digits}f}" if isinstance(value, float) else str(value)


def best_rows(column: Column, rows: tuple[Row, ...]) -> set[int]:
    """The numbers of the rows that read best in a column with a direction."""
    values = {k: v for k, row in enumerate(rows) if isinstance(v := column.value(row), float | int)}
    if not column.better or len(values) < 2:
        return set()
    best = (min if column.better == "lower" else max)(values.values())
    return {k for k, value in values.items() if value == best}

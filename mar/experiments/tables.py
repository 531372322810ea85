"""The tables of papers that ``mar reproduce`` makes: grid files at some of four scales, found by name.

A file begins with its command, what it asks, and ``Time:``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from mar.core.errors import unknown
from mar.experiments.grid_file import TABLES, extended

SCALES = ("digits", "fashion", "gpu", "paper")  # from minutes on two cores to the full recipe
_SENTENCE = re.compile(r"(?<=[.?]) (?=[A-Z(])")


@dataclass(frozen=True)
class Table:
    """A table at one scale; its grid is called ``NAME/SCALE``."""

    name: str
    scale: str

    @property
    def grid(self) -> str:
        """The name under which ``mar.experiments.grid_file.read`` finds it."""
        return f"{self.name}/{self.scale}"

    @property
    def path(self) -> Path:
        return TABLES / self.name / f"{self.scale}.yaml"

    @property
    def asks(self) -> str:
        """What it asks: the first sentence."""
        return _SENTENCE.split(self._header()[0], maxsplit=1)[0]

    @property
    def time(self) -> str:
        """How long it takes, as its file says; empty: it does not say."""
        return self._header()[1]

    @property
    def needs(self) -> list[str]:
        """Names of the given values that have no default."""
        given = extended(self.path).get("given") or {}
        return [str(key) for key in given if OmegaConf.is_missing(given, key)]

    @property
    def takes_data(self) -> bool:
        """Whether it reads data that do not come with the project."""
        return "data" in (extended(self.path).get("given") or {}).keys()  # noqa: SIM118 - a missing value is not "in"

    def _header(self) -> tuple[str, str]:
        lines = [line for line in self.path.read_text().splitlines() if line.startswith("#")]
        text = " ".join(line.lstrip("# ") for line in lines[1:])
        asks, _, time = text.partition("Time: ")
        return asks.strip(), time.strip()


def tables() -> dict[str, list[Table]]:
    """name -> its scales, the smallest first."""
    files = {(path.parent.name, path.stem) for path in TABLES.glob("*/*.yaml")}
    names = sorted({name for name, _ in files})
    return {name: [Table(name, scale) for scale in SCALES if (name, scale) in files] for name in names}


def find(name: str, scale: str | None = None) -> Table:
    """The table at a scale; None: at its smallest.

    Raises:
        UserError: there is none of the name, or not at this scale; the message says which there are.
    """
    known = tables()
    if name not in known:
        raise unknown("table", name, known)
    scales = {table.scale: table for table in known[name]}
    if scale is not None and scale not in scales:
        raise unknown(f"scale of {name}", scale, scales)
    return scales[scale] if scale is not None else known[name][0]

"""Grid files found by name: shipped ablations, and the tables of papers at some of four scales.

A table's file begins with its command, its question, and ``Time:``. This file imports no torch, so that lists and
mistyped names are answered at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mar.config import RECIPES
from mar.core.errors import UserError, unknown

GRIDS = RECIPES / "ablations"
TABLES = RECIPES / "tables"  # NAME/SCALE.yaml: the grids of mar reproduce
SCALES = ("digits", "fashion", "gpu", "paper")  # from minutes on two cores to the full recipe
_SENTENCE = re.compile(r"(?<=[.?]) (?=[A-Z(])")


def grid_names() -> list[str]:
    tables = (f"{p.parent.name}/{p.stem}" for p in TABLES.glob("*/*.yaml"))
    return sorted([*(p.stem for p in GRIDS.glob("*.yaml")), *tables])


def default_out(name: str) -> Path:
    """Return the default folder of a grid."""
    return Path("runs") / f"ablate-{name}"


def grid_name(path: Path) -> str:
    """Return the name of a grid from its file: ``NAME-SCALE`` for a shipped table."""
    return f"{path.parent.name}-{path.stem}" if path.parent.parent == TABLES else path.stem


def grid_path(name: str) -> Path:
    """Return a grid file, given or shipped. Raises UserError: no such file or name; the message has the nearest."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UserError(f"no grid file {name!r}")
    for folder in (GRIDS, TABLES):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise unknown("ablation", name, grid_names())


def extended(path: Path) -> DictConfig:
    """The keys of a file over those of the grid that it extends. Raises UserError: it is no grid."""
    own = OmegaConf.load(path)
    if not isinstance(own, DictConfig):
        raise UserError(f"{path} is no grid: it should be keys with values, as in {GRIDS / 'digits.yaml'}")
    parent = own.pop("extends", None)
    return own if parent is None else OmegaConf.merge(extended(grid_path(parent)), own)  # type: ignore[return-value]


@dataclass(frozen=True)
class Table:
    """A table at one scale; its grid is called ``NAME/SCALE``."""

    name: str
    scale: str

    @property
    def grid(self) -> str:
        """The name that ``read`` takes."""
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

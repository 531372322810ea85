"""Grid files found by name: shipped ablations, and the tables of papers at some of four scales.

A table's file begins with its command, what it runs, and ``Time:``; its question is a key. This file imports no torch,
so that lists and mistyped names are answered at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mar.config import RECIPES
from mar.core.errors import UserError, unknown
from mar.core.files import runs_folder
from mar.core.readers import read_yaml

GRIDS = RECIPES / "ablations"
TABLES = RECIPES / "tables"  # NAME/SCALE.yaml: the grids of mar reproduce
SCALES = ("digits", "fashion", "gpu", "paper")  # from minutes on two cores to the full recipe
_SENTENCE = re.compile(r"(?<=[.?]) (?=[A-Z(])")


def header(path: Path) -> tuple[str, str, str]:
    """Return the command, the first sentence and the time of the comment at the top of a recipe or a grid."""
    lines = [line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#")]
    about, _, time = " ".join(lines[1:]).partition("Time: ")
    return lines[0] if lines else "", _SENTENCE.split(about.strip(), maxsplit=1)[0], time.strip()


def grid_names() -> list[str]:
    tables = (f"{p.parent.name}/{p.stem}" for p in TABLES.glob("*/*.yaml"))
    return sorted([*(p.stem for p in GRIDS.glob("*.yaml")), *tables])


def default_out(name: str) -> Path:
    """Return the default folder of a grid."""
    return runs_folder() / f"ablate-{name}"


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
    own = read_yaml(path, "a grid")
    if not isinstance(own, DictConfig):
        raise UserError(f"{path} is no grid: it should be keys with values, as in {GRIDS / 'digits.yaml'}")
    parent = own.pop("extends", None)
    return own if parent is None else OmegaConf.merge(extended(grid_path(parent)), own)  # type: ignore[return-value]


def about(name: str, data: str = "") -> dict[str, str]:
    """Return the title and the question of a shipped grid, or of a table at the scale of the data's name, else at its
    smallest; of other grids nothing."""
    paths = [path for path in (GRIDS / f"{name}.yaml", *(TABLES / name / f"{s}.yaml" for s in SCALES)) if path.exists()]
    paths.sort(key=lambda path: not data.startswith(path.stem))
    found = extended(paths[0]) if paths else {}
    return {key: str(found[key]) for key in ("title", "question") if found.get(key)}


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
        return TABLES / f"{self.grid}.yaml"

    @cached_property
    def keys(self) -> DictConfig:
        """The keys of its file and of the grid that it extends."""
        return extended(self.path)

    @property
    def header(self) -> tuple[str, str]:
        """Its question, and how long it takes; empty: the file does not say."""
        return str(self.keys.get("question", "")), header(self.path)[2]

    @property
    def given(self) -> dict[str, bool]:
        """Names of the given values; True: it has no default."""
        given = self.keys.get("given") or {}
        return {str(key): OmegaConf.is_missing(given, key) for key in given}


def tables() -> dict[str, list[Table]]:
    """Return the scales of each table, the smallest first."""
    files = sorted(TABLES.glob("*/*.yaml"), key=lambda path: (path.parent.name, SCALES.index(path.stem)))
    return {name: [Table(name, path.stem) for path in paths] for name, paths in groupby(files, lambda p: p.parent.name)}


def find(name: str, scale: str | None = None) -> Table:
    """Return the table at a scale; None: at its smallest. Raise UserError: there is none; the message lists them."""
    known = tables()
    if name not in known:
        raise unknown("table", name, known)
    scales = {table.scale: table for table in known[name]}
    if scale is not None and scale not in scales:
        raise unknown(f"scale of {name}", scale, scales)
    return scales[scale] if scale is not None else known[name][0]

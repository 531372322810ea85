"""Grids found, read and checked: a shipped name or a file, what it extends, the overrides of a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError

from mar.config import RECIPES, Recipe
from mar.core.errors import UserError, unknown
from mar.experiments.evaluations import EVALUATIONS
from mar.experiments.grid import GridFile, referring
from mar.experiments.published import Published, PublishedRow

GRIDS = RECIPES / "ablations"
TABLES = RECIPES / "tables"  # NAME/SCALE.yaml: the grids of mar reproduce


def grid_names() -> list[str]:
    tables = (f"{p.parent.name}/{p.stem}" for p in TABLES.glob("*/*.yaml"))
    return sorted([*(p.stem for p in GRIDS.glob("*.yaml")), *tables])


def default_out(name: str) -> Path:
    """Where a grid of this name is run."""
    return Path("runs") / f"ablate-{name}"


def read(name: str, overrides: Sequence[str] = (), out: Path | None = None) -> GridFile:
    """The grid of a file or a shipped name.

    Args:
        overrides: ``key=value``, of the grid (``fid.images=1000``) or else of its recipes (``train.iterations=9``).
        out: the folder in which it is run, ``given.out``; None: the default.

    Raises:
        UserError: no such grid; a key, a value, a plan or the YAML is wrong.
    """
    path = _path(name)
    of_grid = [text for text in overrides if _key(text) in GridFile.model_fields]
    of_recipe = [text for text in overrides if text not in of_grid]
    for key in map(_key, of_recipe):
        if key not in Recipe.model_fields:
            raise unknown("key of the grid or its recipes", key, {*GridFile.model_fields, *Recipe.model_fields})
    own = f"{path.parent.name}-{path.stem}" if path.parent.parent == TABLES else path.stem
    base = {"name": own, "given": {"out": str(out or default_out("${name}"))}}
    try:
        content = OmegaConf.merge(base, extended(path), OmegaConf.from_dotlist(of_grid))
        plain: Any = OmegaConf.to_container(content, resolve=True, throw_on_missing=True)
        if "given.out" not in OmegaConf.to_yaml(content):
            del plain["given"]["out"]
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise UserError(f"{path} needs {key}=…: say it after the name of the grid") from None
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    except Exception as error:  # YAML's own errors share no base with omegaconf's
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    plain["command"] = [*(plain.get("command") or []), *of_recipe]
    return checked(path, plain)


def _key(override: str) -> str:
    """The outermost key of ``key.of.a.section=value``."""
    return override.partition("=")[0].split(".")[0]


def extended(path: Path) -> DictConfig:
    """The keys of a file over those of the grid that it extends. Raises UserError: it is no grid."""
    own = OmegaConf.load(path)
    if not isinstance(own, DictConfig):
        raise UserError(f"{path} is no grid: it should be keys with values, as in {GRIDS / 'digits.yaml'}")
    parent = own.pop("extends", None)
    return own if parent is None else OmegaConf.merge(extended(_path(parent)), own)  # type: ignore[return-value]


def checked(path: Path, plain: Any) -> GridFile:
    """The grid of plain values.

    Raises:
        UserError: a key, a value or a plan is wrong; the message begins with ``path``.
    """
    try:
        return referring(GridFile.model_validate(plain))
    except ValidationError as error:
        raise UserError(_readable(path, error)) from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _path(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UserError(f"no grid file {name!r}")
    for folder in (GRIDS, TABLES):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise unknown("ablation", name, grid_names())


def _readable(path: Path, error: ValidationError) -> str:
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")  # a misspelt key is missing, too
    *section, key = (str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{path}: {'.'.join([*section, key])}: {first['msg']} (got {first['input']!r})"
    if section and section[0] == "published":
        known = PublishedRow if "rows" in section else Published
    else:
        known = EVALUATIONS.get(section[0], GridFile) if section else GridFile
    return f"{path}: {unknown('grid key', '.'.join([*section, key]), known.model_fields)}"

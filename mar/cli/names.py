"""Refuse mistyped kinds, options and keys before torch is imported: names are read from the source of the families.

Only names of this project are known here. ``mar.build`` checks again, with the types of values and other packages' classes.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import mar
from mar.config import Recipe
from mar.core.errors import unknown
from mar.experiments.shipped import extended
from orderings import parse_ordering, parse_partition
from orderings.user import is_file_target

_FAMILIES = {"data": "mar.data", "tokenizer": "mar.tokenizers", "network": "mar.networks", "head": "mar.heads"}


def check_recipe(recipe: Recipe) -> None:
    """Raise UserError, UnknownName: a recipe names a kind or an option that does not exist; the nearest is named."""
    parse_ordering(recipe.ordering.kind, recipe.ordering.model_extra or {})
    parse_partition(recipe.partition.kind, recipe.partition.model_extra or {})
    for family, module in _FAMILIES.items():
        component, ours = getattr(recipe, family), kinds(module)
        if (kind := component.kind) in ours:
            known = options(module, ours[kind])
            for name in set(component.model_extra or {}) - set(known):
                raise unknown(f"option of {family} {kind!r}:", name, known)
        elif not is_file_target(kind) and kind not in (others := [entry.name for entry in entry_points(group=module)]):
            raise unknown(f"{family} kind", kind, [*ours, *others])


def check_grid_keys(grid: Path, overrides: Sequence[str]) -> None:
    """Raise UserError: an override begins with no key of a grid, a metric or a recipe, and is no axis of ``grid``."""
    axes = extended(grid).get("axes") or {}
    known = {*fields("mar.experiments.grid", "GridFile"), *kinds("mar.metrics"), *Recipe.model_fields}
    for text in overrides:
        whole = text.partition("=")[0].removesuffix("+")
        key = whole.partition(".")[0]
        if "=" in text and key not in known and whole not in axes:
            raise unknown("grid or recipe key", key, {*known, *map(str, axes)})


def kinds(module: str) -> dict[str, str]:
    """Return the names and the classes of the first dict of a package."""
    found = next(node for node in ast.walk(_tree(module)) if isinstance(node, ast.Dict))
    return {ast.literal_eval(key): value.id for key, value in zip(found.keys, found.values, strict=True)}  # type: ignore


def options(module: str, name: str) -> list[str]:
    """Return the fields of the ``Options`` of a class, its own or inherited."""
    module, node = _class(module, name)
    for line in node.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "Options":
            return fields(module, ast.unparse(line.value))
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "Options":
            return fields(module, ast.unparse(line.value))  # type: ignore[arg-type]
    return options(module, ast.unparse(node.bases[0]))


def fields(module: str, name: str) -> list[str]:
    """Return the annotated attributes of a class of this project and of its bases."""
    try:
        module, node = _class(module, name)
    except LookupError:  # a class of another package
        return []
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign)]
    own = [ast.unparse(line.target) for line in lines if "ClassVar" not in ast.unparse(line.annotation)]
    inherited = [field for base in node.bases for field in fields(module, ast.unparse(base))]
    return list(dict.fromkeys([*inherited, *own]))


def _class(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """Return a class and its module. Raises LookupError: no module of this project has it."""
    if not module.startswith("mar."):
        raise LookupError(name)
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return _class(node.module or "", name)
    raise LookupError(name)


@cache
def _tree(module: str) -> ast.Module:
    path = Path(mar.__file__).parent.joinpath(*module.split(".")[1:])
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())

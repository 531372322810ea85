"""The grid file: what is trained, under which plans it is scored, and with what.

recipe: digits                        # a shipped recipe or a file
overrides: [train.iterations=1500]    # of that recipe
orderings: [raster, spiral, random]
partitions: [singles, "cosine:16"]
reference: raster                     # the plan that the others are compared with; default the first
nll: {split: test}
fid: {images: 360}
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError

from mar import config
from mar.config import RECIPES, Recipe, Section
from mar.errors import UserError, unknown
from orderings import describe, parse_ordering, parse_partition, parse_plan

GRIDS = RECIPES / "ablations"


class NllEvaluation(Section):
    """The likelihood of a split along each plan."""

    split: Literal["train", "validation", "test"] = "test"
    images: int | None = Field(default=None, ge=2, description="the split's first so many; None: all")
    seed: int = Field(default=0, ge=0, description="of random orders, dequantisation and the noise of bounds")


class FidEvaluation(Section):
    """Images generated along each plan, from the same noise and classes, against a split of real ones."""

    images: int = Field(default=1000, ge=8)
    split: Literal["train", "validation", "test"] = "test"
    guidance: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=1.0, ge=0)
    seed: int = Field(default=0, ge=0)
    shown: int = Field(default=40, ge=1, description="images in the picture of samples")
    animated: int = Field(default=12, ge=1, description="images in the animation")


class GridFile(Section):
    """One trained recipe, scored under every ordering with every partition."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    orderings: tuple[str, ...] = Field(min_length=1)
    partitions: tuple[str, ...] = Field(default=("singles",), min_length=1)
    reference: str = Field(default="", description="the plan that the others are compared with; the first")
    nll: NllEvaluation | None = NllEvaluation()
    fid: FidEvaluation | None = FidEvaluation()
    confidence: float = Field(default=0.95, gt=0, lt=1, description="of the intervals of paired differences")

    def plans(self) -> list[str]:
        """Every ordering under the first partition, then under the second, …, in canonical short text.

        Raises:
            ValueError: an ordering or a partition that does not exist; the message names the nearest.
        """
        pairs = product(map(parse_partition, self.partitions), map(parse_ordering, self.orderings))
        return list(dict.fromkeys(describe(ordering, partition) for partition, ordering in pairs))

    def training(self) -> Recipe:
        """The recipe of the one model."""
        return config.read(self.recipe, self.overrides)


def grid_names() -> list[str]:
    return sorted(p.stem for p in GRIDS.glob("*.yaml"))


def read(name: str, overrides: Sequence[str] = ()) -> GridFile:
    """The grid of a file or a shipped name.

    Args:
        overrides: ``key=value``, of the grid (``fid.images=1000``) or else of its recipe (``train.iterations=9``).

    Raises:
        UserError: no such grid; a key, a value, a plan or the YAML is wrong.
    """
    path = _path(name)
    of_grid = [text for text in overrides if text.partition("=")[0].split(".")[0] in GridFile.model_fields]
    of_recipe = [text for text in overrides if text not in of_grid]
    try:
        content = OmegaConf.merge({"name": path.stem}, OmegaConf.load(path), OmegaConf.from_dotlist(of_grid))
        plain: Any = OmegaConf.to_container(content, resolve=True)
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    except Exception as error:  # YAML's own errors share no base with omegaconf's
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    plain["overrides"] = [*(plain.get("overrides") or []), *of_recipe]
    try:
        return _checked(GridFile.model_validate(plain))
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
    if (GRIDS / f"{name}.yaml").is_file():
        return GRIDS / f"{name}.yaml"
    raise unknown("ablation", name, grid_names())


def _checked(grid: GridFile) -> GridFile:
    """The grid with its reference in canonical text, among its plans."""
    plans = grid.plans()
    reference = describe(*parse_plan(grid.reference)) if grid.reference else plans[0]
    if reference not in plans:
        raise UserError(f"the reference {reference!r} is not among the grid's plans: {', '.join(plans)}")
    grid.training()
    return grid.model_copy(update={"reference": reference})


def _readable(path: Path, error: ValidationError) -> str:
    first = error.errors()[0]
    *section, key = (str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{path}: {'.'.join([*section, key])}: {first['msg']} (got {first['input']!r})"
    known = {"nll": NllEvaluation, "fid": FidEvaluation}.get(section[0], GridFile) if section else GridFile
    return f"{path}: {unknown('grid key', '.'.join([*section, key]), known.model_fields)}"

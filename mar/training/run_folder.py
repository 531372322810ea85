"""A run is a folder: recipe, environment, metrics, checkpoints, samples, scores."""

from __future__ import annotations

import json
import math
import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from pydantic import TypeAdapter

from mar.config import Recipe, Train, parse, read_content
from mar.core.errors import UserError
from mar.core.files import RUN, environment, locked, near, write_atomic
from mar.core.readers import read_as, read_json
from mar.core.records import refuse_other
from mar.data.base import About
from mar.training.checkpoint import check_length

_MAY_CHANGE = {
    "name",
    *(f"train.{key}" for key in ("iterations", "log_every", "validate_every", "validation_examples", "sample_every")),
    *("train.fid_every", "train.fid_images", "train.save_every", "train.save_on", "train.trackers", "train.keep"),
    *("train.parallel", "train.checkpoint_activations", "train.accumulation"),
    *("data.path", "data.unit", "data.images", "data.workers", "data.damaged_limit", "condition.path"),
}
_SETTLED = ("train.precision", "train.compile")  # ``auto`` is what the run began with
_PATHS = (
    ("data", "path"),
    ("data", "unit"),
    ("data", "images"),
    ("tokenizer", "path"),
    ("ordering", "path"),
    ("condition", "path"),
)  # of a recipe
_ABOUT = TypeAdapter(About)


class RunFolder:
    """The folder of a run; ``best`` holds the checkpoint of best validation (``train.keep_best``)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints, self.best = self.path / "checkpoints", self.path / "best"
        self.metrics = self.path / "metrics.jsonl"

    def recipe(self) -> Recipe:
        """Read the recipe that the run was started with. Raise UserError if the folder is not a run."""
        file = self.path / RUN
        if not file.is_file():
            raise UserError(f"{self.path} is not a run folder: it has no recipe.yaml")
        return parse(read_content(file, resolve=False))

    def located(self, recipe: Recipe | None = None, data_path: str = "") -> Recipe:
        """Return the run's recipe; relative paths that are not here are those seen from where the run was started.

        Args:
            recipe: the run's, read before.
            data_path: where the data lie now; "": where they were.
        """
        recipe, file = recipe or self.recipe(), self.path / "environment.json"
        content = recipe.as_dict()
        content["data"] |= {"path": data_path} if data_path else {}
        named = [(content[section], key) for section, key in _PATHS if content.get(section, {}).get(key)]
        if not named:
            return recipe
        started = read_json(file, "the environment of a run").get("started_in", "") if file.is_file() else ""
        for section, key in named:
            section[key] = near(str(section[key]), self.path, started)
        return parse(content)

    def about(self) -> About | None:
        """Return the metadata of the training data; None for runs from before this was recorded."""
        file = self.path / "data.json"
        return read_as(About, file, "the metadata of a run's data") if file.is_file() else None

    def write_description(self, recipe: Recipe, about: About) -> None:
        """Write the recipe and the metadata of the data."""
        write_atomic(self.path / RUN, OmegaConf.to_yaml(OmegaConf.create(recipe.as_dict())))
        write_atomic(self.path / "data.json", _ABOUT.dump_json(about, indent=1, exclude={"former"}).decode())

    def original_setting(self, recipe: Recipe, key: Literal["precision", "compile"]) -> Any:
        """Return the recipe's ``train.KEY``; ``auto`` is the setting that the run began with, on whatever machine."""
        asked, file = getattr(recipe.train, key), self.path / "environment.json"
        if asked != "auto" or not file.is_file():
            return asked
        return read_json(file, "the environment of a run").get(key, getattr(self.recipe().train, key))

    def start(self, recipe: Recipe, about: About, computes: dict[str, Any]) -> list[str]:
        """Create the folder, or check that it belongs to the same recipe (``_MAY_CHANGE`` apart) and data. Return notes
        about changes.

        Args:
            computes: precision and the like, for ``environment.json``.

        Raises:
            UserError: the folder holds another run (the message names the first differing key), or a longer one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        said = []
        if (self.path / RUN).is_file():
            before, known = self.recipe(), self.about()
            settled = {key for key in _SETTLED if getattr(recipe.train, key.removeprefix("train.")) == "auto"}
            dicts = before.as_dict(), recipe.as_dict()
            refuse_other(self.path, "a run of another recipe", *dicts, _MAY_CHANGE | settled)
            if known is not None and not about.recorded_as(known.fingerprint):
                raise UserError(
                    f"the data of {self.path} have changed since it began ({known.name} {known.fingerprint[:12]}, now "
                    f"{about.fingerprint[:12]}): bring them back, choose another --out, or "
                    "delete its data.json to go on with these"
                )
            check_length(self.checkpoints, before.train.iterations, recipe.train.iterations)
            said = schedule_changes(before.train, recipe.train)
        self.write_description(recipe, about)
        place = {"started_in": os.path.relpath(Path.cwd(), self.path.resolve())}
        write_atomic(self.path / "environment.json", json.dumps(environment() | computes | place, indent=1))
        return said

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder for this run. Raises UserError: as ``mar.core.files.locked``."""
        return locked(self.path, RUN)

    def log(self, **values: Any) -> None:
        """Append a line to ``metrics.jsonl``."""
        with self.metrics.open("a") as file:
            file.write(_line(values))

    def history(self) -> list[dict[str, Any]]:
        """Return every logged line."""
        lines: list[dict[str, Any]] = []
        for line in self.metrics.read_text().splitlines() if self.metrics.is_file() else ():
            with suppress(ValueError):  # a line cut by a kill or a full disk
                lines.append(json.loads(line))
        return lines

    def validations(self) -> list[tuple[int, float]]:
        """Return (iteration, nats per token) of every validation."""
        return self.logged("validation_nats_per_token")

    def logged(self, key: str) -> list[tuple[int, float]]:
        """Return (iteration, value) of every line that has ``key``."""
        return [(line["iteration"], line[key]) for line in self.history() if line.get(key) is not None]

    def rewind(self, iteration: int) -> None:
        """Delete the lines logged after ``iteration``, which training repeats."""
        kept = [line for line in self.history() if line["iteration"] <= iteration]
        write_atomic(self.metrics, "".join(map(_line, kept)))


def _line(values: dict[str, Any]) -> str:
    """Return a line of JSON; numbers that are not finite become null, since JSON has no NaN."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def schedule_changes(before: Train, now: Train) -> list[str]:
    """Describe the schedules that a new number of iterations changes."""
    old, new = before.iterations, now.iterations
    moved = [f"the {now.schedule.kind} learning rate"] * (now.schedule.kind != "constant")
    moved += ["the latest decay"] * (now.until == "plateau")
    moved += ["the ramp of scheduled sampling"] * bool(now.scheduled_sampling.probability)
    if old == new or not moved:
        return []
    return [f"iterations were {old} and are {new}: from here on {' and '.join(moved)} follows the new length"]

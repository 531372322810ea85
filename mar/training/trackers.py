"""Trackers of a training, through accelerate: curves, recipe and samples, resumed under the same run id.

Used by models and autoencoders, on the main process alone. ``metrics.jsonl`` is written beside them in any case.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from mar.core.errors import UserError, unknown
from mar.core.files import write_atomic
from mar.core.log import logger
from mar.core.processes import tracker_class
from mar.core.readers import read_json
from orderings.user import is_file_target

TENSORBOARD = "tensorboard"
NAMES = (TENSORBOARD, "wandb", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab")
_PROJECT = "mar"  # unless WANDB_PROJECT, TRACKIO_PROJECT, …


def check_trackers(names: Sequence[str], option: str = "train.trackers") -> None:
    """Raise UserError: a tracker is unknown, its package is not installed, or a FILE.py:Class is no tracker."""
    for name in names:
        if is_file_target(name):
            tracker_class(name)
        elif name not in NAMES:
            raise unknown("tracker", name, NAMES)
        elif find_spec(name) is None:
            raise UserError(f"{option}: the package of {name} is not installed: pip install {name}")


class Trackers:
    """The open trackers of a run.

    Args:
        path: the run folder; ``tracking.json`` keeps the ids under which a resumed training goes on.
        settings: the recipe, logged to each tracker once.
        iteration: where the training starts.

    Raises:
        UserError: a tracker does not start (no login, no connection).
    """

    def __init__(self, names: Sequence[str], path: Path, name: str, settings: dict[str, Any], iteration: int) -> None:
        self.path, self.lost = path, set[str]()
        self.open: dict[str, Any] = {}
        file = path / "tracking.json"
        kept = read_json(file, "the ids of trackers") if file.is_file() else {"id": uuid.uuid4().hex, "described": []}
        for kind in names:
            project = os.environ.get(f"{kind.upper()}_PROJECT", _PROJECT)
            try:
                self.open[kind] = tracker = self._start(kind, project, name, kept, iteration)
                if kind == TENSORBOARD:
                    if iteration == 0:
                        tracker.log({"recipe": f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(settings))}```"}, 0)
                elif kind not in kept["described"]:
                    tracker.store_init_configuration(dict(_flat(settings)))
                    kept["described"].append(kind)
            except Exception as error:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise UserError(f"the tracker {kind} does not start ({reason})") from None
        if kept["described"]:
            write_atomic(file, json.dumps(kept, indent=1))

    def _start(self, kind: str, project: str, name: str, kept: dict[str, Any], iteration: int) -> Any:
        cls, own = tracker_class(kind), kept["id"]
        if kind == TENSORBOARD:
            tracker = cls(TENSORBOARD, self.path, purge_step=iteration + 1)
        else:
            place = [self.path] if cls.requires_logging_directory else []
            tracker = cls(project, *place, **{
                "wandb": {"id": own, "name": name, "resume": "allow", "dir": str(self.path)},
                "trackio": {"name": f"{name}-{own[:8]}", "resume": "allow"},
                "mlflow": {"run_id": kept.get("mlflow"), "run_name": name},
                "comet_ml": {"experiment_key": own},
                "swanlab": {"id": own[:21], "experiment_name": name, "resume": "allow"},
            }.get(kind, {}))  # fmt: skip
        if hasattr(tracker, "start"):  # accelerate before 1.12 starts in the constructor
            tracker.start()
        if kind == "mlflow":
            kept["mlflow"] = tracker.tracker.info.run_id
        return tracker

    def log(self, iteration: int, **values: float) -> None:
        """Log numbers at an iteration."""
        self._each(lambda tracker: tracker.log(values, step=iteration))

    def samples(self, file: Path, iteration: int) -> None:
        """Log a picture, or a text, of samples."""
        if file.suffix == ".png":
            from PIL import Image

            image = np.asarray(Image.open(file).convert("RGB"))
            self._each(lambda tracker: _log_picture(tracker, file, image, iteration))
        elif file.suffix == ".txt":
            self._each(lambda tracker: tracker.log({"samples": file.read_text()}, step=iteration))

    def finish(self) -> None:
        self._each(lambda tracker: tracker.finish())

    def _each(self, action: Any) -> None:
        """Go on training if a tracker fails, and say so once."""
        for kind, tracker in self.open.items():
            try:
                action(tracker)
            except Exception as error:
                if kind not in self.lost:
                    logger.info(f"note: the tracker {kind} of {self.path} failed ({error}); training goes on")
                self.lost.add(kind)


def _log_picture(tracker: Any, file: Path, image: np.ndarray, iteration: int) -> None:
    if tracker.name == TENSORBOARD:
        tracker.log_images({"samples": image[None]}, step=iteration, dataformats="NHWC")
    elif tracker.name == "trackio":
        import trackio  # pyright: ignore[reportMissingImports]

        tracker.log({"samples": trackio.Image(image)}, step=iteration)
    elif hasattr(tracker, "log_images"):
        tracker.log_images({"samples": [image]}, step=iteration)
    elif hasattr(tracker, "log_artifact"):
        tracker.log_artifact(str(file), "samples")


def _flat(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and plain values."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, bool | int | float | str | None) else str(value)


@contextmanager
def tracking(names: Sequence[str], path: Path, name: str, settings: dict[str, Any], at: int) -> Iterator[Trackers]:
    """Open the trackers of a run inside the block. Arguments and errors: as ``Trackers``."""
    trackers = Trackers(names, path, name, settings, at)
    try:
        yield trackers
    finally:
        trackers.finish()

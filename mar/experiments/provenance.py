"""Where the figures of an ablation come from: revision, command, versions, hardware, time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mar.experiments import prepare
from mar.experiments.engine import Engine
from mar.experiments.result import AblationResult

_PARTS = {
    "training": "training", "sets": "set costs", "nll": "NLL", "fid": "images", "probe": "probe", "speed": "speed"
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """Cells whose training last ran at one revision on one machine.

    Attributes:
        cells: their names.
    """

    revision: str
    device: str
    cpu: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """
    Attributes:
        grid: its name.
        environment: of the command that wrote the table (``mar.core.files.environment``).
        clean: no tracked file differed from the revision; None: unknown.
        trained: who trained what.
        seconds: of each part, summed over cells and so over workers; of a part that was interrupted its last run,
            of training all of it.
    """

    grid: str
    environment: dict[str, Any]
    clean: bool | None
    trained: tuple[Trained, ...]
    seconds: dict[str, float]

    @property
    def elsewhere(self) -> list[Trained]:
        """Those trained at another revision than the table was made at."""
        return [each for each in self.trained if each.revision != self.environment["revision"]]


def provenance(engine: Engine, result: AblationResult) -> Provenance:
    """Of the result that was assembled from the engine's folder."""
    revision = result.environment["revision"]
    return Provenance(
        result.name,
        result.environment,
        None if revision == "unknown" else not revision.endswith("-dirty"),
        _trained(engine),
        _seconds(engine, result),
    )


def _trained(engine: Engine) -> tuple[Trained, ...]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in engine.cells:
        file = engine.folder(cell).path / "environment.json"
        if file.is_file():
            about = json.loads(file.read_text())
            key = (about["revision"], about["device"], about.get("cpu", "unknown"))
            found.setdefault(key, []).append(cell.name)
    return tuple(Trained(*key, tuple(cells)) for key, cells in found.items())


def _seconds(engine: Engine, result: AblationResult) -> dict[str, float]:
    """Shared training counts once."""
    seconds = dict.fromkeys(_PARTS.values(), 0.0)
    cells = {cell.fingerprint: cell for cell in engine.cells if cell.served}
    for cell in cells.values():
        for ask in engine.questions(cell):
            if ask.evaluation != "training" and (record := engine.record(cell, ask)) is not None:
                seconds[_PARTS[ask.evaluation]] += record.seconds
    curves = {model.fingerprint: model.training for model in result.models}
    seconds["training"] = sum(curve.seconds for curve in curves.values() if curve is not None)
    seconds["preparation"] = prepare.seconds(engine.grid, engine.out)
    return {part: value for part, value in seconds.items() if value}

"""How far a grid or a run is, from the files in its folder alone: no model is built and no data are read.

OUT/outline.json    every cell with its questions, written when a grid starts
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from pydantic import TypeAdapter

from mar.config import parse
from mar.core.files import RUN, write_atomic
from mar.core.records import Record, read

OUTLINE = "outline.json"
_TRAINING_SHARE = 0.85  # of a cell's time; the rest is evaluation


@dataclass(frozen=True)
class OutlinedQuestion:
    """
    Attributes:
        metric: its name, or "training".
        file: of its record, relative to the grid's folder.
        content: what identifies the answer; the hash of the weights is that of the cell's training.
        alone: measured when nothing else runs.
        weights: a checkpoint that a variant names; empty: the one that the grid selects.
    """

    metric: str
    file: str
    content: dict[str, Any]
    alone: bool = False
    weights: str = ""


@dataclass(frozen=True)
class Outline:
    """One cell with its questions, training first.

    Attributes:
        run: its run folder, relative to the grid's folder.
        refused: why the cell is not trained; empty: it is.
    """

    name: str
    run: str
    iterations: int
    refused: str = ""
    questions: tuple[OutlinedQuestion, ...] = field(default=())


@dataclass(frozen=True)
class State:
    """How far one cell is.

    Attributes:
        name: of the cell.
        kind: "speed": only metrics that are measured alone are left; "failed": a part failed, and the rest is done.
        text: a line for a reader.
        share: of its work that is done, 0..1; None: it has none.
    """

    name: str
    kind: Literal["refused", "failed", "done", "speed", "evaluation", "training", "waiting"]
    text: str
    share: float | None


def write_outlines(out: Path, outlines: Sequence[Outline]) -> None:
    """Write OUT/outline.json."""
    write_atomic(out / OUTLINE, json.dumps([asdict(outline) for outline in outlines]))


def read_outlines(out: Path) -> list[Outline] | None:
    """Return the cells of a folder; None: it was written before folders had an outline."""
    file = out / OUTLINE
    return TypeAdapter(list[Outline]).validate_json(file.read_bytes()) if file.is_file() else None


def states_of(out: Path, outlines: Sequence[Outline]) -> list[State]:
    """Return the state of every cell."""
    return [_state(out, outline) for outline in outlines]


def _state(out: Path, cell: Outline) -> State:
    if cell.refused:
        return State(cell.name, "refused", cell.refused, None)
    records = answered(out, cell)
    errors = [
        f"{q.metric}: {r.error}" for q, r in zip(cell.questions, records, strict=True) if r and r.error is not None
    ]
    training, asked = records[0], len(records) - 1
    if errors and (training is None or training.error or all(records)):
        return State(cell.name, "failed", "; ".join(errors), 1.0)
    left = [question for question, record in zip(cell.questions, records, strict=True) if record is None]
    if not left:
        return State(cell.name, "done", f"{asked} evaluations", 1.0)
    if training is not None and all(question.alone for question in left):
        return State(cell.name, "speed", "its speed is measured when all are trained", 0.99)
    if training is not None:
        done = asked - len(left)
        share = _TRAINING_SHARE + (1.0 - _TRAINING_SHARE) * done / asked
        return State(cell.name, "evaluation", f"{done} of {asked} evaluations", share)
    last = trained_iterations(out / cell.run)
    if not last:
        return State(cell.name, "waiting", f"{cell.iterations} iterations", 0.0)
    share = _TRAINING_SHARE * last / cell.iterations
    return State(cell.name, "training", f"{last} of {cell.iterations} iterations", share)


def answered(out: Path, cell: Outline) -> list[Record | None]:
    """Return the record of each question; None: it is not answered."""
    training, *others = cell.questions
    first = read(out / training.file, training.content)
    trained: dict[str, Any] = first.answer if first is not None and first.answer is not None else {"weights": ""}
    contents = (
        {**q.content, "weights": trained.get(q.weights, trained)["weights"]} if "weights" in q.content else q.content
        for q in others
    )
    return [first, *(read(out / q.file, content) for q, content in zip(others, contents, strict=True))]


def forget_failures(out: Path, outlines: Sequence[Outline]) -> None:
    """Delete the records of failures, so that the next call of ``Engine.work`` tries them again."""
    for cell in outlines:
        for question, record in zip(cell.questions, answered(out, cell) if cell.questions else (), strict=True):
            if record is not None and record.error is not None:
                (out / question.file).unlink(missing_ok=True)


def share(found: Sequence[State]) -> float:
    """Return the share of the grid's work that is done, 0..1; cells count alike."""
    shares = [state.share for state in found if state.share is not None]
    return sum(shares) / len(shares) if shares else 1.0


class Clock:
    """The remaining time, from the progress since the clock was started."""

    def __init__(self, states: Sequence[State]) -> None:
        self.started, self.first = time.monotonic(), share(states)

    def left(self, now: Sequence[State]) -> float | None:
        """Return seconds; None: too little is done to tell."""
        done = share(now)
        if done - self.first < 0.005:
            return None
        return (time.monotonic() - self.started) * (1.0 - done) / (done - self.first)


def trained_iterations(run: Path) -> int:
    """Return the last logged iteration of a run folder; a line cut off by a kill does not count."""
    file = run / "metrics.jsonl"
    for line in reversed(file.read_text().splitlines() if file.is_file() else []):
        with suppress(ValueError):
            return json.loads(line)["iteration"]
    return 0


def wanted_iterations(run: Path) -> int:
    """Return the length of a run's training, as far as it is known."""
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").is_file() else []
    curve = []
    for line in lines:
        with suppress(ValueError, KeyError):
            found = json.loads(line)
            curve.append((found["iteration"], found["validation_nats_per_token"]))
    content: Any = OmegaConf.to_container(OmegaConf.load(run / RUN))
    return parse(content).train.length(curve)

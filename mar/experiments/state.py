"""How far a grid or a run is, from the files in its folder alone: no model is built and no data are read.

OUT/outline.json    every cell with its questions, written when a grid starts
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from mar.config import parse, read_content
from mar.core.files import RUN
from mar.core.records import Question, Record, read

OUTLINE = "outline.json"
_TRAINING_SHARE = 0.85  # of a cell's time; the rest is evaluation


@dataclass(frozen=True)
class Outline:
    """One cell with its questions, training first."""

    name: str
    run: str  # its run folder, relative to the grid's folder
    iterations: int
    refused: str = ""  # why the cell is not trained
    questions: tuple[Question, ...] = ()

    def answers(self, out: Path) -> list[tuple[Question, Record | None]]:
        """Return each question, with the trained weights in its content, and its record; None: it is not answered."""
        found: list[tuple[Question, Record | None]] = []
        for question in self.questions:
            if found and "weights" in question.content:
                trained = found[0][1]
                answer = (trained.answer if trained is not None else None) or {"weights": ""}
                content = {**question.content, "weights": answer.get(question.weights, answer)["weights"]}
                question = replace(question, content=content)
            file = out / question.file
            found.append((question, read(file, question.content) if file.is_file() else None))
        return found

    def state(self, out: Path) -> State:
        if self.refused:
            return State(self.name, "refused", self.refused, None)
        found = self.answers(out)
        return replace(self._progress(out, found), scores=_scores([record.answer for _, record in found if record]))

    def _progress(self, out: Path, found: list[tuple[Question, Record | None]]) -> State:
        (_, training), count = found[0], len(found) - 1
        errors = [f"{of.metric}: {record.error}" for of, record in found if record and record.error is not None]
        left = [question for question, record in found if record is None]
        if errors and (training is None or training.error or not left):
            return State(self.name, "failed", "; ".join(errors), 1.0)
        if not left:
            return State(self.name, "done", f"{count} evaluations", 1.0)
        if training is not None and all(question.alone for question in left):
            return State(self.name, "speed", "its speed is measured when all are trained", 0.99)
        if training is not None:
            done = count - len(left)
            share = _TRAINING_SHARE + (1.0 - _TRAINING_SHARE) * done / count
            return State(self.name, "evaluation", f"{done} of {count} evaluations", share)
        last = trained_iterations(out / self.run)
        text = f"{last} of {self.iterations} iterations" if last else f"{self.iterations} iterations"
        return State(self.name, "training" if last else "waiting", text, _TRAINING_SHARE * last / self.iterations)


@dataclass(frozen=True)
class State:
    """How far one cell is. Speed: only metrics measured alone are left; failed: a part failed, the rest is done."""

    name: str
    kind: Literal["refused", "failed", "done", "speed", "evaluation", "training", "waiting"]
    text: str  # a line for a reader
    share: float | None  # of its work that is done, 0..1; None: it has none
    scores: str = ""  # the range of each score over the plans


def read_outlines(out: Path) -> list[Outline] | None:
    """Return the cells of a folder; None: it was written before folders had an outline, or its outline is damaged."""
    with suppress(OSError, ValueError):
        return TypeAdapter(list[Outline]).validate_json((out / OUTLINE).read_bytes())
    return None


def forget_failures(out: Path, outlines: Sequence[Outline]) -> None:
    """Delete the records of failures, so that the next call of ``Engine.work`` tries them again."""
    for question, record in (pair for cell in outlines for pair in cell.answers(out)):
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
    """Return the last logged iteration of a run folder."""
    return max((line["iteration"] for line in _lines(run)), default=0)


def run_state(run: Path) -> dict[str, Any]:
    """Return a run's last logged numbers, and the seconds left at its last speed; None: not known."""
    lines, train = _lines(run), parse(read_content(run / RUN, resolve=False)).train
    last = {key: value for line in lines for key, value in line.items() if value is not None}
    nats = "validation_nats_per_token"
    length = train.length([(line["iteration"], line[nats]) for line in lines if line.get(nats) is not None])
    shown = ("loss_nats_per_token", nats, "validation_bits_per_dim", "images_per_second")
    done, rate = last.get("iteration", 0), last.get("images_per_second")
    left = (length - done) * train.batch_size / rate if rate else None
    return {"iteration": done, "iterations": length, **{key: last.get(key) for key in shown}, "seconds_left": left}


def _scores(answers: Sequence[dict[str, Any] | None]) -> str:
    found: dict[str, list[float]] = {}
    for answer in filter(None, answers):
        bits, fid = answer.get("bits_per_dim"), answer.get("scores", {}).get("generated", {}).get("fid")
        for name, value in (("NLL", answer.get("nats_per_image") if bits is None else bits), ("FID", fid)):
            if value is not None:
                found.setdefault(name, []).append(value)
    ranges = {name: dict.fromkeys(f"{bound(values):.4g}" for bound in (min, max)) for name, values in found.items()}
    return ", ".join(f"{name} {'–'.join(ends)}" for name, ends in ranges.items())


def _lines(run: Path) -> list[dict[str, Any]]:
    """Return the logged lines; one cut off by a kill does not count."""
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").is_file() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found

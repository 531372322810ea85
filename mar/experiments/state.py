"""How far a grid is, read from its folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from mar.experiments.cells import Cell
from mar.experiments.engine import Ask, Engine

_TRAINING = 0.85  # of a cell's time; the rest is evaluation


@dataclass(frozen=True)
class State:
    """One cell.

    Attributes:
        name: of the cell.
        kind: what it is in; "speed": all but its speed, which is measured last; "failed": some of it, and the rest is
            done.
        text: a line for a reader.
        share: of its work that is done, 0..1; None where there is none to do.
    """

    name: str
    kind: Literal["refused", "failed", "done", "speed", "evaluation", "training", "waiting"]
    text: str
    share: float | None


def states(engine: Engine) -> list[State]:
    """The state of every cell, in the grid's order."""
    return [_state(engine, cell) for cell in engine.cells]


def forget_failures(engine: Engine) -> None:
    """What failed counts as not done, and will be tried again: once, however many then work on the grid."""
    served = [cell for cell in engine.cells if cell.served]
    answers = {engine.file(cell, ask): engine.record(cell, ask) for cell in served for ask in engine.questions(cell)}
    for file, record in answers.items():
        if record is not None and record.error is not None:
            file.unlink(missing_ok=True)


def _state(engine: Engine, cell: Cell) -> State:
    if not cell.served:
        reason = next(reason for reason in cell.plans.values() if isinstance(reason, str))
        return State(cell.name, "refused", reason, None)
    asked = engine.questions(cell)
    records = {ask: engine.record(cell, ask) for ask in asked}
    errors = [f"{ask.evaluation}: {r.error}" for ask, r in records.items() if r is not None and r.error is not None]
    training = records[Ask("training")]
    if errors and (training is None or training.error or all(records.values())):
        return State(cell.name, "failed", "; ".join(errors), 1.0)
    if all(record is not None for record in records.values()):
        return State(cell.name, "done", f"{len(asked) - 1} evaluations", 1.0)
    if [ask for ask, record in records.items() if record is None] == [Ask("speed")]:
        return State(cell.name, "speed", "its speed is measured when all are trained", 0.99)
    if training is not None:
        done = sum(record is not None for record in records.values()) - 1
        share = _TRAINING + (1.0 - _TRAINING) * done / (len(asked) - 1)
        return State(cell.name, "evaluation", f"{done} of {len(asked) - 1} evaluations", share)
    history, iterations = engine.folder(cell).history(), cell.recipe.train.iterations
    if not history:
        return State(cell.name, "waiting", f"{iterations} iterations", 0.0)
    last = history[-1]["iteration"]
    return State(cell.name, "training", f"{last} of {iterations} iterations", _TRAINING * last / iterations)


class Clock:
    """The time that is left, from how far the grid was when the clock was started and how far it is."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.started, self.first = engine, time.monotonic(), share(states(engine))

    def left(self, now: list[State]) -> float | None:
        """Seconds; None while too little is done to tell."""
        done = share(now)
        if done - self.first < 0.005:
            return None
        return (time.monotonic() - self.started) * (1.0 - done) / (done - self.first)


def share(found: list[State]) -> float:
    """Of the whole grid's work that is done, 0..1; cells count alike."""
    shares = [state.share for state in found if state.share is not None]
    return sum(shares) / len(shares) if shares else 1.0

"""A fixed order that lowers the NLL of a trained any-order model: the best of some starts, then local search.

N images · L tokens

Every change is decided on the search images; the order that is kept is the best on the control images, which decide
nothing else, so that luck with the search images does not count. What was found is reported on other data altogether.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from mar.core.errors import Stopped, UserError
from mar.core.records import refuse_other
from mar.order_search.moves import Evaluator, Ledger, greedy, propose, race

_CONTROL = 4  # every fourth image
_SECONDS = 20.0  # between two savings

Say = Callable[["Search", str], None]


@dataclass(frozen=True)
class Budget:
    """Both are counted from the beginning of the search, interruptions included."""

    minutes: float
    proposals: int | None = None

    def __post_init__(self) -> None:
        if self.minutes < 0.0:
            raise UserError(f"the minutes to search are not negative, not {self.minutes:g}")


@dataclass(frozen=True)
class Improvement:
    """The state of a search when a change was accepted."""

    proposals: int
    seconds: float
    control_nats: float


@dataclass
class Search:
    """A search as far as it has come, which is all that it needs to go on.

    Attributes:
        question: what the answer depends on beside the budget; a search goes on under the same one only.
        order: the tokens in the order that local search stands at.
        best: the order of lowest control_nats so far.
        best_nats: its mean nats per image on the control images.
        starts: control nats of every start.
        start: the one that local search began from: the best on the search images.
        proposals, accepted: changes tried, and made.
        rows: rows that went through the network.
        seconds: spent searching.
        finished: no budget was left, or no change is possible.
        improvements: one for each accepted change.
    """

    question: dict[str, Any]
    order: tuple[int, ...] = ()
    best: tuple[int, ...] = ()
    best_nats: float = float("inf")
    starts: dict[str, float] = field(default_factory=dict)
    start: str = ""
    proposals: int = 0
    accepted: int = 0
    rows: int = 0
    seconds: float = 0.0
    finished: bool = False
    improvements: list[Improvement] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, question: dict[str, Any]) -> Search:
        """The search kept in a file, or a new one.

        Raises:
            UserError: the file holds another search, or none.
        """
        if not path.is_file():
            return cls(question)
        try:
            kept = TypeAdapter(cls).validate_python(json.loads(path.read_text()))
        except (ValueError, ValidationError):
            raise UserError(f"{path} holds no search: delete it, or choose another --name") from None
        there = {key: kept.question.get(key) for key in question}
        refuse_other(path, "another search", there, question, remedy="choose another --name, or delete it")
        return kept

    def text(self) -> str:
        return json.dumps(asdict(self))


def search(
    evaluator: Evaluator,
    state: Search,
    starts: Mapping[str, torch.Tensor | None],
    budget: Budget,
    seed: int = 0,
    keep: Callable[[Search], None] = lambda state: None,
    say: Say = lambda state, doing: None,
) -> Search:
    """Go on with ``state`` until the budget is spent.

    Proposals and the images that they are tried on are functions of (seed, number of the proposal), so an interrupted
    search that goes on finds what an uninterrupted one does, up to rounding.

    Args:
        starts: orders by name; None for ``lowest-entropy`` and ``highest-entropy``, which are found greedily.
        keep: called with the state after the starts, from time to time, and at the end.
        say: called with the state and what is being done.

    Raises:
        UserError: too few images, or all orders are alike because there is one set only.
        Stopped: by Ctrl-C, after ``keep``.
    """
    if len(evaluator.token) < 2 * _CONTROL:
        raise UserError(f"an order search wants at least {2 * _CONTROL} images, not {len(evaluator.token)}")
    if evaluator.n_steps < 2:
        raise UserError("in one set all orders are alike: choose a partition of more sets")
    began, seconds, rows = time.monotonic(), state.seconds, state.rows  # of the processes before this one

    def stamp() -> None:
        state.seconds, state.rows = seconds + time.monotonic() - began, rows + evaluator.rows

    try:
        if state.start:
            ledgers = _ledgers(evaluator, torch.tensor(state.order))
        else:
            ledgers = _begin(evaluator, state, starts, say)
            stamp()
            keep(state)
        _climb(evaluator, state, budget, seed, stamp, ledgers, keep, say)
    except KeyboardInterrupt:
        stamp()
        if not state.start:
            raise  # nothing is found yet
        keep(state)
        raise Stopped(signal.SIGINT) from None
    keep(state)
    return state


def _ledgers(evaluator: Evaluator, order_L: torch.Tensor) -> tuple[Ledger, Ledger]:
    """Of the search images, and of the control images."""
    image_N = torch.arange(len(evaluator.token))
    control_N = image_N % _CONTROL == 0
    return Ledger(evaluator, image_N[~control_N], order_L), Ledger(evaluator, image_N[control_N], order_L)


def _begin(
    evaluator: Evaluator, state: Search, starts: Mapping[str, torch.Tensor | None], say: Say
) -> tuple[Ledger, Ledger]:
    """Score every start. The ledgers of the best on the search images, where local search begins."""
    found: dict[str, tuple[Ledger, Ledger]] = {}
    for name, order_L in starts.items():
        say(state, f"start: {name}")
        if order_L is None:
            image_N = torch.arange(len(evaluator.token))
            order_L = greedy(evaluator, image_N[image_N % _CONTROL != 0], lowest=name == "lowest-entropy")
        found[name] = _ledgers(evaluator, order_L)
        state.starts[name] = float(found[name][1].total().mean())
    state.start = min(found, key=lambda name: float(found[name][0].total().mean()))
    state.order = state.best = tuple(found[state.start][0].order_L.tolist())
    state.best_nats = state.starts[state.start]
    return found[state.start]


def _climb(
    evaluator: Evaluator,
    state: Search,
    budget: Budget,
    seed: int,
    stamp: Callable[[], None],
    ledgers: tuple[Ledger, Ledger],
    keep: Callable[[Search], None],
    say: Say,
) -> None:
    """Local search from ``state.order``, which the ledgers hold."""
    searched, control = ledgers
    kept = time.monotonic()
    state.finished = False
    while not state.finished:
        stamp()
        spent = budget.proposals is not None and state.proposals >= budget.proposals
        changed_L = propose(evaluator, searched.order_L, seed, state.proposals)
        if spent or state.seconds >= 60.0 * budget.minutes or changed_L is None:
            state.finished = True
            break
        say(state, "local search")
        accepted = race(searched, changed_L, seed, state.proposals).accepted
        state.proposals += 1
        if accepted:
            control.move(changed_L)
            nats = float(control.total().mean())
            state.accepted, state.order = state.accepted + 1, tuple(changed_L.tolist())
            state.improvements.append(Improvement(state.proposals, state.seconds, nats))
            if nats < state.best_nats:
                state.best_nats, state.best = nats, state.order
        if time.monotonic() - kept >= _SECONDS:
            keep(state)
            kept = time.monotonic()

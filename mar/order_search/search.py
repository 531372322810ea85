"""A fixed order that lowers the NLL of a trained any-order model: the best of some starts, then local search.

N images · L tokens

Every change is decided on the search images; the order that is kept is the best on the control images, which decide
nothing else, so that luck with the search images does not count. What was found is reported on other data altogether.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mar.core.errors import Stopped, UserError
from mar.core.readers import read_as
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
    """The state of a search, sufficient to go on."""

    question: dict[str, Any]  # what the answer depends on beside the budget
    order: tuple[int, ...] = ()  # the tokens in the order that local search stands at
    best: tuple[int, ...] = ()  # the order of lowest nats on the control images so far
    best_nats: float = float("inf")  # its mean nats per image on the control images
    starts: dict[str, float] = field(default_factory=dict)  # control nats of every start
    start: str = ""  # where local search began: the best on the search images
    proposals: int = 0  # changes tried
    accepted: int = 0  # changes made
    rows: int = 0  # rows that went through the network
    seconds: float = 0.0  # spent searching
    finished: bool = False  # no budget was left, or no change is possible
    improvements: list[Improvement] = field(default_factory=list)  # one for each accepted change

    @classmethod
    def load(cls, path: Path, question: dict[str, Any]) -> Search:
        """Return the search kept in a file, or a new one. Raise UserError if the file holds another search, or none."""
        if not path.is_file():
            return cls(question)
        try:
            kept = read_as(cls, path, "a search for an order")
        except UserError:
            raise UserError(f"{path} holds no search: delete it, or choose another --name") from None
        there = {key: kept.question.get(key) for key in question}
        refuse_other(path, "another search", there, question, remedy="choose another --name, or delete it")
        return kept

    def text(self) -> str:
        return json.dumps(asdict(self))


def search(
    evaluator: Evaluator, state: Search, starts: Mapping[str, torch.Tensor | None], budget: Budget, seed: int = 0,
    keep: Callable[[Search], None] = lambda state: None, say: Say = lambda state, doing: None,
) -> Search:  # fmt: skip
    """Continue ``state`` until the budget is spent.

    Proposals and the images that they are tried on are functions of (seed, number of the proposal): an interrupted
    search that continues finds what an uninterrupted one does, up to rounding.

    Args:
        starts: orders by name; None for ``lowest-entropy`` and ``highest-entropy``, which are found greedily.
        budget: its minutes include the starts; a start that they do not allow is left out.
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
            ledgers = _begin(evaluator, state, starts, say, began + 60.0 * budget.minutes)
            stamp()
            keep(state)
        kept, state.finished = time.monotonic(), False
        while True:
            stamp()
            spent = budget.proposals is not None and state.proposals >= budget.proposals
            changed_L = propose(evaluator, ledgers[0].order_L, seed, state.proposals)
            if spent or state.seconds >= 60.0 * budget.minutes or changed_L is None:
                state.finished = True
                break
            say(state, "local search")
            _try(state, changed_L, *ledgers, seed)
            if time.monotonic() - kept >= _SECONDS:
                keep(state)
                kept = time.monotonic()
    except KeyboardInterrupt:
        stamp()
        if not state.start:
            raise  # nothing is found yet
        keep(state)
        raise Stopped(signal.SIGINT) from None
    keep(state)
    return state


def _ledgers(evaluator: Evaluator, order_L: torch.Tensor) -> tuple[Ledger, Ledger]:
    """Return the ledgers of the search images and of the control images."""
    image_N = torch.arange(len(evaluator.token))
    control_N = image_N % _CONTROL == 0
    return Ledger(evaluator, image_N[~control_N], order_L), Ledger(evaluator, image_N[control_N], order_L)


def _begin(
    evaluator: Evaluator, state: Search, starts: Mapping[str, torch.Tensor | None], say: Say, end: float
) -> tuple[Ledger, Ledger]:
    """Score the starts, at least one, until the time ``end``: fixed orders first, which cost less. Return the ledgers
    of the best on the search images, where local search begins."""
    found: dict[str, tuple[Ledger, Ledger]] = {}
    for name, order_L in sorted(starts.items(), key=lambda start: start[1] is None):
        if found and time.monotonic() >= end:
            break
        say(state, f"start: {name}")
        if order_L is None:
            image_N = torch.arange(len(evaluator.token))
            until = end if found else math.inf
            order_L = greedy(evaluator, image_N[image_N % _CONTROL != 0], name == "lowest-entropy", until)
            if order_L is None:
                break
        found[name] = _ledgers(evaluator, order_L)
        state.starts[name] = float(found[name][1].total().mean())
    state.start = min(found, key=lambda name: float(found[name][0].total().mean()))
    state.order = state.best = tuple(found[state.start][0].order_L.tolist())
    state.best_nats = state.starts[state.start]
    return found[state.start]


def _try(state: Search, changed_L: torch.Tensor, searched: Ledger, control: Ledger, seed: int) -> None:
    """Race a change against the order of the ledgers; an accepted change moves them."""
    accepted = race(searched, changed_L, seed, state.proposals).accepted
    state.proposals += 1
    if accepted:
        control.move(changed_L)
        nats = float(control.total().mean())
        state.accepted, state.order = state.accepted + 1, tuple(changed_L.tolist())
        state.improvements.append(Improvement(state.proposals, state.seconds, nats))
        if nats < state.best_nats:
            state.best_nats, state.best = nats, state.order

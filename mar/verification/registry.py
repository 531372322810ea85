"""The registry under the contract tests: each component alone, then models that cover every pair of components."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from mar import build
from mar.errors import Unsupported, UserError
from mar.model import Model
from mar.noise import stream
from mar.tokens import Categories, TokenKind, Vectors
from mar.verification.cases import accepts, case
from mar.verification.models import small_model, verify_model
from mar.verification.networks import cached_equals_uncached, no_leak
from mar.verification.verdict import Verdict
from orderings import ORDERINGS, PARTITIONS, Grid, Plan

GRIDS = ("2x3", "6", "1x2x3")  # few enough tokens to enumerate every image
_TOKENS: tuple[TokenKind, ...] = (Categories(2), Vectors(2))
_ROWS = 3


@dataclass(frozen=True)
class Cell:
    """One model of the product of all components, by name."""

    ordering: str
    partition: str
    network: str
    head: str
    grid: str

    def __str__(self) -> str:
        return f"{self.ordering}/{self.partition} {self.network} {self.head} on {self.grid}"


def factors() -> tuple[list[str], ...]:
    """The names of each factor of the product, in the order of ``Cell``'s fields."""
    return sorted(ORDERINGS), sorted(PARTITIONS), sorted(build.NETWORKS), sorted(build.HEADS), list(GRIDS)


def values(cell: Cell) -> tuple[str, ...]:
    """The names that a cell is made of, in the order of ``factors``."""
    return cell.ordering, cell.partition, cell.network, cell.head, cell.grid


def product() -> Iterator[Cell]:
    """Every supported cell."""
    return (cell for cell in itertools.starmap(Cell, itertools.product(*factors())) if supported(cell))


def pairwise_cells() -> list[Cell]:
    """Supported cells in which every pair of components that can meet does meet."""
    return [Cell(*row) for row in pairwise(factors(), lambda row: supported(Cell(*row)))]


def pairwise(factors: Sequence[Sequence[str]], supported: Callable[[tuple[str, ...]], bool]) -> list[tuple[str, ...]]:
    """A greedy covering array: rows in which every pair of values of two factors occurs, where any row may hold it.

    For each pair still missing, the supported row is taken that covers most of what is missing.
    """
    places = list(itertools.combinations(range(len(factors)), 2))
    missing = {(i, a, j, b): None for i, j in places for a in factors[i] for b in factors[j]}  # a dict keeps its order
    rows = []

    def pairs(row: tuple[str, ...]) -> list[tuple[int, str, int, str]]:
        return [(i, row[i], j, row[j]) for i, j in places]

    while missing:
        i, a, j, b = next(iter(missing))
        fixed = [[a] if k == i else [b] if k == j else values for k, values in enumerate(factors)]
        candidates = sorted(itertools.product(*fixed), key=lambda row: -sum(pair in missing for pair in pairs(row)))
        row = next((row for row in candidates if supported(row)), None)
        if row is None:  # these two never meet
            del missing[i, a, j, b]
            continue
        rows.append(row)
        for pair in pairs(row):
            missing.pop(pair, None)
    return rows


def supported(cell: Cell) -> bool:
    """Whether the cell's parts serve its grid, its tokens and each other."""
    return _plan_of(cell) is not None


@cache
def _plan_of(cell: Cell) -> Plan | None:
    """A plan with a given token in the middle, or at first if the network serves no other; None: it serves neither."""
    model = _model(cell.network, cell.head, cell.grid)
    if model is None:
        return None
    for given in (len(Grid.parse(cell.grid)) // 2, 0):
        plan = _plan(cell.ordering, cell.partition, cell.grid, given)
        if plan is not None and accepts(model.network, plan):
            return plan
    return None


@cache
def _plan(ordering: str, partition: str, grid: str, given: int) -> Plan | None:
    """Three rows under tiny options, with a given token; None where refused."""
    try:
        lattice = Grid.parse(grid)
        given_BL = torch.arange(len(lattice)) == given
        source = stream(0, "verify/cell", _ROWS)
        order_class, cut_class = ORDERINGS[ordering], PARTITIONS[partition]
        order, cut = order_class(**order_class.tiny), cut_class(**cut_class.tiny)
        return Plan.draw(order, cut, lattice, _ROWS, source, given_BL=given_BL.expand(_ROWS, -1))
    except (Unsupported, UserError):
        return None


@cache
def _model(network: str, head: str, grid: str) -> Model | None:
    network_class, head_class = build.find("network", network), build.find("head", head)
    for token in _TOKENS:
        try:
            return small_model(network_class, head_class, Grid.parse(grid).shape, token)
        except (Unsupported, UserError):
            continue
    return None


def verify_cell(cell: Cell) -> list[Verdict]:
    """The claims about a model that depend on its plan."""
    plan, model = _plan_of(cell), _model(cell.network, cell.head, cell.grid)
    assert plan is not None and model is not None, f"{cell} is not supported"
    alone = [case(f"{cell.ordering}/{cell.partition}", model.network, plan)]
    subject = str(cell)
    verdicts = [check(subject, model.network, alone) for check in (no_leak, cached_equals_uncached)]
    return verdicts + verify_model(model, plan, subject)

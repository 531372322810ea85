"""Contract tests: ``verify(MyNetwork)``, or ``verify_registry()`` for each of our components and their combinations.

Every function returns ``Verdict(claim, subject, passed, detail)``; a broken contract is a verdict, not an exception.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.tokens import Categories, TokenKind, Vectors
from mar.heads import HEADS
from mar.heads.base import Head
from mar.heads.categorical import CategoricalHead
from mar.model.model import Model
from mar.networks import NETWORKS
from mar.networks.base import Network
from mar.verification.cases import accepts, case, small_network
from mar.verification.heads import verify_head
from mar.verification.models import small_model, verify_model, verify_network_in_model
from mar.verification.networks import cached_equals_uncached, no_leak, verify_network
from mar.verification.orderings import verify_ordering, verify_partition
from mar.verification.verdict import Verdict
from orderings import ORDERINGS, PARTITIONS, Grid, Ordering, Partition, Plan
from orderings.user import load_class


def load(target: str) -> type:
    """Return the class of ``FILE.py:Class`` or ``module:Class``, or raise UserError."""
    return load_class(target, (Ordering, Partition, Network, Head), UserError)


GRIDS = ("2x3", "6", "1x2x3")  # few enough tokens to enumerate every image
_TOKENS: tuple[TokenKind, ...] = (Categories(2), Vectors(2))
_ROWS = 3
_DRAWS = 500  # images of each plan of a cell: each network alone draws more


class Cell(NamedTuple):
    """A model of the product of all components, by name."""

    ordering: str
    partition: str
    network: str
    head: str
    grid: str

    def __str__(self) -> str:
        return f"{self.ordering}/{self.partition} {self.network} {self.head} on {self.grid}"


def factors() -> tuple[list[str], ...]:
    """Return the names of each factor of the product, in the order of the fields of ``Cell``."""
    return sorted(ORDERINGS), sorted(PARTITIONS), sorted(NETWORKS), sorted(HEADS), list(GRIDS)


def product() -> Iterator[Cell]:
    """Yield every supported cell."""
    return (cell for cell in itertools.starmap(Cell, itertools.product(*factors())) if supported(cell))


def pairwise_cells() -> list[Cell]:
    """Return supported cells that cover every pair of components with a supported cell."""
    return [Cell(*row) for row in pairwise(factors(), lambda row: supported(Cell(*row)))]


def pairwise(factors: Sequence[Sequence[str]], supported: Callable[[tuple[str, ...]], bool]) -> list[tuple[str, ...]]:
    """Return a greedy covering array: rows with every pair of values of two factors that a supported row holds."""
    places = list(itertools.combinations(range(len(factors)), 2))
    missing = {(i, a, j, b): None for i, j in places for a in factors[i] for b in factors[j]}  # a dict keeps its order
    rows = []

    def pairs(row: tuple[str, ...]) -> list[tuple[int, str, int, str]]:
        return [(i, row[i], j, row[j]) for i, j in places]

    while missing:
        i, a, j, b = next(iter(missing))
        fixed = [[a] if k == i else [b] if k == j else values for k, values in enumerate(factors)]
        candidates = sorted(itertools.product(*fixed), key=lambda row: -sum(pair in missing for pair in pairs(row)))
        found = next(([row] for row in candidates if supported(row)), [])  # the one with most of the missing pairs
        rows += found
        for pair in [(i, a, j, b), *(pair for row in found for pair in pairs(row))]:
            missing.pop(pair, None)
    return rows


def supported(cell: Cell) -> bool:
    """True if the parts of the cell support its grid, its tokens and each other."""
    has_tokens = any(isinstance(token, HEADS[cell.head].tokens) for token in _TOKENS)
    return has_tokens and _plan_of(cell.ordering, cell.partition, cell.network, cell.grid) is not None


@cache
def _plan_of(ordering: str, partition: str, network: str, grid: str) -> Plan | None:
    """Return a plan with a given token in the middle, or first if the network supports no other; None: neither."""
    if (asked := _network(network, grid)) is not None:
        for given in (len(Grid.parse(grid)) // 2, 0):
            plan = _plan(ordering, partition, grid, given)
            if plan is not None and accepts(asked, plan):
                return plan
    return None


@cache
def _network(network: str, grid: str) -> Network | None:
    with suppress(Unsupported, UserError):
        return small_network(NETWORKS[network], Grid.parse(grid).shape)


@cache
def _plan(ordering: str, partition: str, grid: str, given: int) -> Plan | None:
    """Return three rows under test options, with a given token; None if the parts refuse."""
    with suppress(Unsupported, UserError):
        lattice = Grid.parse(grid)
        given_BL = torch.arange(len(lattice)) == given
        source = stream(0, "verify/cell", _ROWS)
        order_class, cut_class = ORDERINGS[ordering], PARTITIONS[partition]
        order, cut = order_class(**order_class.test_options), cut_class(**cut_class.test_options)
        return Plan.sample(order, cut, lattice, _ROWS, source, given_BL=given_BL.expand(_ROWS, -1))


@cache
def _model(network: str, head: str, grid: str) -> Model | None:
    for token in _TOKENS:
        with suppress(Unsupported, UserError):
            return small_model(NETWORKS[network], HEADS[head], Grid.parse(grid).shape, token)
    return None


def verify_cell(cell: Cell) -> list[Verdict]:
    """Test the claims about a model that depend on its plan."""
    plan = _plan_of(cell.ordering, cell.partition, cell.network, cell.grid)
    model = _model(cell.network, cell.head, cell.grid)
    assert plan is not None and model is not None, f"{cell} is not supported"
    alone, subject = [case(f"{cell.ordering}/{cell.partition}", model.network, plan)], str(cell)
    verdicts = [check(subject, model.network, alone) for check in (no_leak, cached_equals_uncached)]
    return verdicts + verify_model(model, plan, subject, _DRAWS)


_NEED_A_FILE = {"file", "optimal"}


def verify(cls: type, subject: str | None = None) -> list[Verdict]:
    """Test the contract of an ordering or a partition (with default options), or of a network or a head (with its
    ``test_options``). Raise UserError if ``cls`` is of another family.
    """
    subject = subject or cls.__name__
    if issubclass(cls, Ordering | Partition):
        check: Any = verify_ordering if issubclass(cls, Ordering) else verify_partition
        return [verdict for name, part in _instances(cls, subject) for verdict in check(part, name)]
    if issubclass(cls, Network):
        return verify_network(cls, subject) + verify_network_in_model(cls, CategoricalHead, subject)
    if issubclass(cls, Head):
        return verify_head(cls, subject)
    raise UserError(f"{subject} is no Ordering, Partition, Network or Head: subclass the one that it is")


def _instances(cls: Any, subject: str) -> list[tuple[str, Any]]:
    """Return instances with default options, and with ``test_options`` if the class has some."""
    try:
        tiny = [(f"{subject}, {cls.test_options}", cls(**cls.test_options))] if cls.test_options else []
        return [(subject, cls()), *tiny]
    except TypeError as error:
        raise UserError(f"{cls.__name__}: give every option a default, to be verified ({error})") from None


def verify_registry(whole_product: bool = False) -> Iterator[list[Verdict]]:
    """Test our registries: each component alone, then models that cover every pair of components, or all models."""
    for family in (NETWORKS, HEADS, ORDERINGS, PARTITIONS):
        for name, cls in family.items():
            if name not in _NEED_A_FILE:
                yield verify(cls, name)
    for cell in product() if whole_product else pairwise_cells():
        yield verify_cell(cell)

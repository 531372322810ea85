"""``FILE.py:Class`` and ``module:Class``, read from the command line.

The registry under the contract tests: each component alone, then models that cover every pair of components.

Contract tests: ``verify(MyNetwork)``, or ``verify_registry()`` for everything of our own.

Every function returns ``Verdict(claim, subject, passed, detail)``; nothing raises because a contract is broken.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from mar import build
from mar.core.errors import Unsupported, UserError, unknown
from mar.core.noise import stream
from mar.core.tokens import Categories, TokenKind, Vectors
from mar.heads.base import Head
from mar.heads.categorical import CategoricalHead
from mar.model.model import Model
from mar.networks.base import Network
from mar.verification.cases import accepts, case
from mar.verification.heads import verify_head
from mar.verification.models import small_model, verify_model, verify_network_in_model
from mar.verification.networks import cached_equals_uncached, no_leak, verify_network
from mar.verification.orderings import verify_ordering, verify_partition
from mar.verification.verdict import Verdict
from orderings import ORDERINGS, PARTITIONS, Grid, Ordering, Partition, Plan

_CONTRACTS = (Ordering, Partition, Network, Head)


def load(target: str) -> type:
    """The class that a target names.

    Raises:
        UserError: the file, the module or the class is not there, or is none of ours.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise UserError(f"write FILE.py:Class or module:Class, not {target!r}")
    path = Path(place)
    with _importable(path.parent if path.suffix == ".py" else Path()):
        module = _from_file(path) if path.suffix == ".py" else _from_name(place)
    classes = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, _CONTRACTS) and value not in _CONTRACTS
    }
    if name in classes:
        return classes[name]
    if hasattr(module, name):
        raise UserError(f"{target}: {name} is no Ordering, Partition, Network or Head: subclass the one that it is")
    defined = [key for key, value in classes.items() if value.__module__ == module.__name__]
    raise unknown(f"class of {place}:", name, defined or ["(it defines no ordering, partition, network or head)"])


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """A user's file may import its neighbours and what lies in the working directory, as a script may."""
    before = list(sys.path)
    sys.path[:0] = [str(folder.resolve()), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"no file {str(path)!r}")
    name = f"verified_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path} does not import: {type(error).__name__}: {error}") from None
    return module


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"no module {name!r}: {error}") from None


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


__all__ = ["Verdict", "verify", "verify_registry"]


_NEED_AN_OPTION = {"file", "optimal"}  # without the file that they read they are none


def verify(cls: type, subject: str | None = None) -> list[Verdict]:
    """The contract tests of an ordering, a partition (with their default options), a network or a head (with the
    options in its ``tiny``).

    Raises:
        UserError: ``cls`` is none of these.
    """
    subject = subject or cls.__name__
    if issubclass(cls, Ordering):
        return [verdict for name, part in _instances(cls, subject) for verdict in verify_ordering(part, name)]
    if issubclass(cls, Partition):
        return [verdict for name, part in _instances(cls, subject) for verdict in verify_partition(part, name)]
    if issubclass(cls, Network):
        return verify_network(cls, subject) + verify_network_in_model(cls, CategoricalHead, subject)
    if issubclass(cls, Head):
        return verify_head(cls, subject)
    raise UserError(f"{subject} is no Ordering, Partition, Network or Head: subclass the one that it is")


def _instances(cls: Any, subject: str) -> list[tuple[str, Any]]:
    """With default options, and with ``tiny`` ones where it has some."""
    try:
        tiny = [(f"{subject}, {cls.tiny}", cls(**cls.tiny))] if cls.tiny else []
        return [(subject, cls()), *tiny]
    except TypeError as error:
        raise UserError(f"{cls.__name__}: give every option a default, to be verified ({error})") from None


def verify_registry(whole_product: bool = False) -> Iterator[list[Verdict]]:
    """Everything of our own: each component alone, then models that cover every pair of components, or all of them."""
    for family, names in (("network", build.NETWORKS), ("head", build.HEADS)):
        for name in names:
            yield verify(build.find(family, name), name)
    for names in (ORDERINGS, PARTITIONS):
        for name, cls in names.items():
            if name not in _NEED_AN_OPTION:
                yield verify(cls, name)
    for cell in product() if whole_product else pairwise_cells():
        yield verify_cell(cell)

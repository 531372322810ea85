"""Every ordering, partition and adaptive order by name.

Adding one is a file and a line here. Other packages plug theirs in through the entry-point groups ``mar.orderings``,
``mar.partitions`` and ``mar.adaptive``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

from orderings import adaptive, blocks, curves, optimal, partitions, scans, stochastic, user
from orderings import curves as halton
from orderings import scans as lattices
from orderings import scans as spiral
from orderings.adaptive import Adaptive
from orderings.base import Ordering, Partition
from orderings.grid import InvalidRequest

ORDERINGS: dict[str, type[Ordering]] = {
    "raster": scans.Raster,
    "reverse": scans.Reverse,
    "column": scans.Column,
    "serpentine": scans.Serpentine,
    "diagonal": scans.Diagonal,
    "centre-out": scans.CentreOut,
    "spiral": spiral.Spiral,
    "subsample": lattices.Subsample,
    "checkerboard": lattices.Checkerboard,
    "hilbert": curves.Hilbert,
    "morton": curves.Morton,
    "halton": halton.Halton,
    "blocks": blocks.Blocks,
    "segments": blocks.Segments,
    "random": stochastic.Random,
    "learned": stochastic.Learned,
    "fixed-random": stochastic.FixedRandom,
    "mixture": stochastic.Mixture,
    "annealed": stochastic.Annealed,
    "file": user.File,
}

PARTITIONS: dict[str, type[Partition]] = {
    "singles": partitions.Singles,
    "equal": partitions.Equal,
    "cosine": partitions.Cosine,
    "linear": partitions.Linear,
    "power": partitions.Power,
    "arccos": partitions.Arccos,
    "sizes": partitions.Sizes,
    "blocks": partitions.BlockSets,
    "optimal": optimal.Optimal,
}

ADAPTIVE: dict[str, type[Adaptive]] = {
    "lowest-entropy": adaptive.LowestEntropy,
    "highest-entropy": adaptive.HighestEntropy,
    "confidence": adaptive.Confidence,
}

# names under which papers and code know some of ours
ALIASES = {
    "alternate": "serpentine",  # RAR
    "z-curve": "morton",  # RAR
    "row-major": "raster",
    "column-major": "column",
    "center-out": "centre-out",
    "user": "file",
}


class UnknownName(InvalidRequest):
    """A name or an option that does not exist; the message names the nearest one that does."""

    def __init__(self, what: str, name: str, choices: Iterable[str]) -> None:
        names = sorted(choices)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        rest = f"choose from {', '.join(names)}" if names else "it has none"
        super().__init__(f"unknown {what} {name!r}: {hint}{rest}")


class Family(NamedTuple):
    what: str
    group: str  # of entry points
    ours: Mapping[str, type]


FAMILIES: dict[type, Family] = {
    Ordering: Family("ordering", "mar.orderings", ORDERINGS),
    Partition: Family("partition", "mar.partitions", PARTITIONS),
    Adaptive: Family("adaptive order", "mar.adaptive", ADAPTIVE),
}


_WHY = {  # an adaptive order is no plan, by uses_sampled_values
    True: "it looks at the values just sampled, so it has no tractable likelihood; mar sample --adaptive {name}",
    False: "its order is found while the model generates, an order for each image; "
    "mar sample --adaptive {name}, mar score nll --plans {name}",
}


_WHY_REMASK = (
    "tokens that were drawn are drawn again, so an example's probability is a sum over all paths that end in it, which "
    "is no tractable likelihood; mar sample --remask random, and a likelihood of the plan alone"
)


def find(base: type, name: str) -> type:
    """The class of that name in the family of ``base``: ours, or one that an installed package plugs in.

    Raises:
        UnknownName: there is none; the message holds the nearest.
    """
    what, group, ours = FAMILIES[base]
    name = ALIASES.get(name, name)
    if name in ours:
        return ours[name]
    plugged = {entry.name: entry for entry in entry_points(group=group)}
    if name in plugged:
        return plugged[name].load()
    if base is Ordering and name == "remask":
        raise InvalidRequest(f"remask is no plan: {_WHY_REMASK}")
    if base is Ordering and (rule := all_of(Adaptive).get(name)):
        why = _WHY[rule.uses_sampled_values].format(name=name)
        raise InvalidRequest(f"{name} is no plan: {why}")
    raise UnknownName(what, name, [*ours, *plugged])


def find_ordering(name: str) -> type[Ordering]:
    """``find`` among orderings."""
    return find(Ordering, name)


def find_partition(name: str) -> type[Partition]:
    """``find`` among partitions."""
    return find(Partition, name)


def name_of(component: Ordering | Partition | Adaptive) -> str:
    """The name under which the component's class is found.

    Raises:
        UnknownName: its class is neither ours nor plugged in.
    """
    _, group, ours = next(family for base, family in FAMILIES.items() if isinstance(component, base))
    for name, cls in ours.items():
        if type(component) is cls:
            return name
    for entry in entry_points(group=group):
        if entry.load() is type(component):
            return entry.name
    raise UnknownName("class", type(component).__name__, (cls.__name__ for cls in ours.values()))


def all_of(base: type) -> dict[str, type]:
    """Every class of a family by name, plugged-in ones last."""
    _, group, ours = FAMILIES[base]
    return {**ours, **{entry.name: entry.load() for entry in entry_points(group=group)}}

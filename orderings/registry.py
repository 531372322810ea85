"""Orderings, partitions and adaptive orders by name, and the registry class that every family of components uses.

Adding an ordering or a partition is one file and one line here. Other packages add theirs through the entry-point
groups ``mar.orderings``, ``mar.partitions`` and ``mar.adaptive``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar, Generic, TypeVar

from orderings import adaptive, blocks, curves, optimal, partitions, scans, stochastic, user
from orderings.adaptive import Adaptive
from orderings.base import Ordering, Partition
from orderings.grid import InvalidRequest, UnknownName
from orderings.user import FILE_TARGET, TARGETS, is_file_target, load_class

T = TypeVar("T")


class Registry(dict[str, type[T]], Generic[T]):
    """The classes of one family by name: a dict of our own; ``registry[name]`` looks in two further places.

    Other packages add classes through the entry-point group; ``FILE.py:Class`` names a class of a Python file.

    Attributes:
        what: the family in error messages, e.g. ``"ordering"``.
        base: the class that every member is a subclass of.
        group: the entry-point group.
        aliases: further names of our own classes.
    """

    error: ClassVar[type[Exception]] = InvalidRequest

    def __init__(
        self, ours: Mapping[str, type[T]], what: str, base: type[T], group: str, aliases: Mapping[str, str] = {}
    ) -> None:
        super().__init__(ours)
        self.what, self.base, self.group, self.aliases = what, base, group, dict(aliases)

    def __missing__(self, name: str) -> type[T]:
        """Return the class of an alias, a Python file or another package; ``registry[name]`` calls it.

        Raises:
            InvalidRequest: there is no such class (the message gives the nearest name), or it does not import.
        """
        if name in self.aliases:
            return self[self.aliases[name]]
        if is_file_target(name):
            return load_class(name, (self.base,), self.error)
        entry = self._plugged().get(name)
        if entry is None:
            raise self.unknown(name)
        try:
            return entry.load()
        except Exception as error:  # importing a package runs its code, which may raise anything
            raise self.error(f"{self.what} {self._broken(entry, error)}") from None

    @staticmethod
    def split(text: str) -> tuple[str, str]:
        """Split ``NAME[:REST]``, where NAME may be ``FILE.py:Class``."""
        name = target[0] if (target := FILE_TARGET.match(text)) else text.partition(":")[0]
        return name, text[len(name) + 1 :]

    def unknown(self, name: str) -> Exception:
        """Return the error for a name that does not exist."""
        return UnknownName(self.what, name, self.names())

    def names(self) -> list[str]:
        """Return every name; classes of other packages come last and are not imported."""
        return [*self, *(name for name in self._plugged() if name not in self)]

    def classes(self) -> tuple[dict[str, type[T]], list[str]]:
        """Return every class by name, and one line for each class of another package that does not import."""
        found, notes = dict(self), []
        for name, entry in self._plugged().items():
            try:
                found.setdefault(name, entry.load())
            except Exception as error:
                notes.append(f"{self.what} {self._broken(entry, error)}")
        return found, notes

    def name_of(self, component: object) -> str:
        """Return the name under which the registry gives the component's class.

        Raises:
            InvalidRequest: the class is in no registry.
        """
        cls = type(component)
        if cls in TARGETS:
            return TARGETS[cls]
        names: dict[type, str] = {member: name for name, member in self.items()}
        if cls not in names:  # looking for other packages takes milliseconds
            names = {member: name for name, member in self.classes()[0].items()}
        if cls in names:
            return names[cls]
        raise UnknownName("class", cls.__name__, (member.__name__ for member in self.values()))

    def _plugged(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    @staticmethod
    def _broken(entry: EntryPoint, error: Exception) -> str:
        package = f" of package {entry.dist.name}" if entry.dist else ""
        reason = " ".join(str(error).split())
        return f"{entry.name!r}{package} does not import ({entry.value}): {type(error).__name__}: {reason}"


class Orderings(Registry[Ordering]):
    """The registry of orderings: names of adaptive orders get the reason why they are no plan."""

    def unknown(self, name: str) -> Exception:
        if name == "remask":
            return InvalidRequest(
                "remask is no plan: it draws tokens again, so an example's probability is a sum over all paths "
                "that end in it, which is no tractable likelihood; mar sample --remask random, and score the plan alone"
            )
        rule = ADAPTIVE.classes()[0].get(name)
        if rule is None:
            return super().unknown(name)
        if rule.uses_sampled_values:
            why = (
                "it looks at the values just sampled, so it has no tractable likelihood; mar sample --adaptive " + name
            )
        else:
            why = (
                "the model finds its order while it generates, an order for each image; "
                f"mar sample --adaptive {name}, mar score nll --plan {name}"
            )
        return InvalidRequest(f"{name} is no plan: {why}")


ORDERINGS = Orderings(
    {
        "raster": scans.Raster,
        "reverse": scans.Reverse,
        "column": scans.Column,
        "serpentine": scans.Serpentine,
        "diagonal": scans.Diagonal,
        "centre-out": scans.CentreOut,
        "spiral": scans.Spiral,
        "subsample": scans.Subsample,
        "checkerboard": scans.Checkerboard,
        "hilbert": curves.Hilbert,
        "morton": curves.Morton,
        "halton": curves.Halton,
        "blocks": blocks.Blocks,
        "segments": blocks.Segments,
        "random": stochastic.Random,
        "learned": stochastic.Learned,
        "fixed-random": stochastic.FixedRandom,
        "mixture": stochastic.Mixture,
        "annealed": stochastic.Annealed,
        "file": user.File,
    },
    what="ordering",
    base=Ordering,
    group="mar.orderings",
    aliases={  # names that papers and code use
        "alternate": "serpentine",  # RAR
        "z-curve": "morton",  # RAR
        "row-major": "raster",
        "column-major": "column",
        "center-out": "centre-out",
        "user": "file",
    },
)

PARTITIONS = Registry(
    {
        "singles": partitions.Singles,
        "equal": partitions.Equal,
        "cosine": partitions.Cosine,
        "linear": partitions.Linear,
        "power": partitions.Power,
        "arccos": partitions.Arccos,
        "sizes": partitions.Sizes,
        "blocks": partitions.BlockSets,
        "optimal": optimal.Optimal,
    },
    what="partition",
    base=Partition,
    group="mar.partitions",
)

ADAPTIVE = Registry(
    {
        "lowest-entropy": adaptive.LowestEntropy,
        "highest-entropy": adaptive.HighestEntropy,
        "confidence": adaptive.Confidence,
    },
    what="adaptive order",
    base=Adaptive,
    group="mar.adaptive",
)


def name_of(component: Ordering | Partition | Adaptive) -> str:
    """Return the name of the component's class. Raises as ``Registry.name_of``."""
    family = next(family for family in (ORDERINGS, PARTITIONS, ADAPTIVE) if isinstance(component, family.base))
    return family.name_of(component)

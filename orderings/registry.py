"""Orderings, partitions and adaptive orders by name, and the registry class that every family of components uses.

Adding an ordering or a partition is one file and one line here. Other packages add theirs through the entry-point
groups ``mar.orderings``, ``mar.partitions`` and ``mar.adaptive``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar, Generic, TypeVar

from orderings import adaptive, blocks, curves, locality, optimal, partitions, places, scans, stochastic, symmetry, user
from orderings.adaptive import Adaptive
from orderings.base import Ordering, Partition
from orderings.grid import InvalidRequest, UnknownName
from orderings.user import FILE_TARGET, TARGETS, is_file_target, load_class

T = TypeVar("T")


class Registry(dict[str, type[T]], Generic[T]):
    """The classes of one family by name: a dict of our own; ``registry[name]`` looks in two further places.

    Other packages add classes through the entry-point ``group``; ``FILE.py:Class`` names a class of a Python file.
    Members are subclasses of ``base``; error messages call one ``what``; ``aliases`` are further names of our classes.
    """

    error: ClassVar[type[Exception]] = InvalidRequest

    def __init__(
        self, ours: Mapping[str, type[T]], what: str, base: type[T], group: str, aliases: Mapping[str, str] = {}
    ) -> None:
        super().__init__(ours)
        self.what, self.base, self.group, self.aliases = what, base, group, dict(aliases)

    def __missing__(self, name: str) -> type[T]:
        """Return the class of an alias, a Python file or another package. Raise ``error`` if there is none."""
        if name in self.aliases:
            return self[self.aliases[name]]
        if is_file_target(name):
            return load_class(name, (self.base,), self.error)
        if (entry := self._plugged().get(name)) is None:
            raise self.unknown(name)
        return self._load(entry)

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
                found.setdefault(name, self._load(entry))
            except self.error as error:
                notes.append(str(error))
        return found, notes

    def name_of(self, component: object) -> str:
        """Return the name of the component's class. Raise InvalidRequest if the registry does not have it."""
        cls = type(component)
        if cls in TARGETS:
            return TARGETS[cls]
        for members in (self, self.classes()[0] if cls not in self.values() else {}):  # other packages take a moment
            for name, member in members.items():
                if member is cls:
                    return name
        raise UnknownName("class", cls.__name__, (member.__name__ for member in self.values()))

    def _plugged(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}

    def _load(self, entry: EntryPoint) -> type[T]:
        try:
            return entry.load()
        except Exception as error:  # importing a package runs its code, which may raise anything
            package = f" of package {entry.dist.name}" if entry.dist else ""
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            what = f"{self.what} {entry.name!r}{package}"
            raise self.error(f"{what} does not import ({entry.value}): {reason}") from None


class Orderings(Registry[Ordering]):
    """The registry of orderings: names of adaptive orders get the reason why they are no plan."""

    def unknown(self, name: str) -> Exception:
        rule = ADAPTIVE.classes()[0].get(name)
        if name == "remask":
            why = (
                "it draws tokens again, so an example's probability is a sum over all paths that end in it, which is "
                "no tractable likelihood; mar sample --remask random, and score the plan alone"
            )
        elif rule is None:
            return super().unknown(name)
        elif rule.uses_sampled_values:
            why = (
                f"it looks at the values just sampled, so it has no tractable likelihood; mar sample --adaptive {name}"
            )
        else:
            why = (
                "the model finds its order while it generates, an order for each image; "
                f"mar sample --adaptive {name}, mar score nll --plans {name}"
            )
        return InvalidRequest(f"{name} is no plan: {why}")


_ALIASES = {  # names that papers and code use; "alternate" and "z-curve" are RAR's
    "alternate": "serpentine", "z-curve": "morton", "row-major": "raster", "column-major": "column",
    "center-out": "centre-out", "user": "file",
}  # fmt: skip

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
        "frames": blocks.Frames,
        "regions": blocks.Regions,
        "segments": blocks.Segments,
        "locality": locality.Locality,
        "random": stochastic.Random,
        "learned": stochastic.Learned,
        "fixed-random": stochastic.FixedRandom,
        "mixture": stochastic.Mixture,
        "symmetries": symmetry.Symmetries,
        "annealed": stochastic.Annealed,
        "file": user.File,
    },
    what="ordering",
    base=Ordering,
    group="mar.orderings",
    aliases=_ALIASES,
)

PARTITIONS = Registry(
    {
        "singles": partitions.Singles,
        "equal": partitions.Equal,
        "cosine": partitions.Cosine,
        "linear": partitions.Linear,
        "power": partitions.Power,
        "arccos": partitions.Arccos,
        "log": partitions.Log,
        "exp": partitions.Exp,
        "randar": partitions.RandAR,
        "lpd": partitions.Lpd,
        "two-stage": partitions.TwoStage,
        "sizes": partitions.Sizes,
        "blocks": places.BlockSets,
        "frames": places.FrameSets,
        "diagonals": places.Diagonals,
        "regions": places.RegionSets,
        "optimal": optimal.Optimal,
    },
    what="partition",
    base=Partition,
    group="mar.partitions",
)

PLANS = {  # parallel decoders of papers; a further name where a plan is written
    "nar": "diagonal/diagonals",
    "par": "regions:2/regions:2",
    "gtr": "checkerboard:random/two-stage:15",
    "randar": "random/randar:88",
    "lpd": "locality:2/lpd:20",
}

ADAPTIVE = Registry(
    {
        "lowest-entropy": adaptive.LowestEntropy,
        "highest-entropy": adaptive.HighestEntropy,
        "largest-margin": adaptive.LargestMargin,
        "entropy-bound": adaptive.EntropyBound,
        "confidence": adaptive.Confidence,
    },
    what="adaptive order",
    base=Adaptive,
    group="mar.adaptive",
)


def name_of(component: Ordering | Partition | Adaptive) -> str:
    """Return the name of the component's class. Raises as ``Registry.name_of``."""
    component = component.of if isinstance(component, symmetry.Symmetric) else component
    family = next(family for family in (ORDERINGS, PARTITIONS, ADAPTIVE) if isinstance(component, family.base))
    return family.name_of(component)

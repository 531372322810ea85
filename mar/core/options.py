"""Options of a component as its dataclass, and the registry class of the families.

A family keeps its classes in one dict beside them: ``NETWORKS = Registry({"made": Made, …}, …)`` in
``mar/networks/__init__.py``. ``NETWORKS["mine"] = Mine`` adds a class at run time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError

import orderings
from mar.core.errors import UserError, unknown
from mar.core.overrides import text_of

T = TypeVar("T")


class Registry(orderings.Registry[T]):
    """Classes of a family by name (see ``orderings.Registry``), each with its typed options."""

    error: ClassVar[type[Exception]] = UserError

    def unknown(self, name: str) -> Exception:
        return unknown(f"{self.what} kind", name, self.names())

    def options(self, name: str, values: Mapping[str, Any]) -> Any:
        """Return the options of a class (its ``Options``, or the class itself), checked and typed.

        Raises:
            UserError: no such class or option, with the nearest one; or a value does not fit its option.
        """
        cls = self[name]
        return typed(getattr(cls, "Options", cls), values, f"option of {self.what} {name!r}:", f"{name} {self.what}.")


def typed(cls: type, values: Mapping[str, Any], what: str, place: str = "") -> Any:
    """Return ``cls(**values)`` with each value converted to the type of its field.

    Args:
        what: the owner of the options in the error for an unknown option.
        place: the prefix of an option's name in the error for a wrong value.

    Raises:
        UserError: no such option, with the nearest one; or a value does not fit its option.
    """
    known = [field.name for field in fields(cls)]
    for name in values:
        if name not in known:
            raise unknown(what, name, known)
    values = dict(values)
    try:
        return _adapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "string_type" and len(first["loc"]) == 1 and (text := text_of(first["input"])) is not None:
            return typed(cls, values | {str(first["loc"][0]): text}, what, place)
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{place}{where}: {first['msg']}, got {first['input']!r}") from None


def replaced(options: Any, values: Mapping[str, Any], what: str, place: str = "") -> Any:
    """Return ``options`` with some ``values`` replaced. Arguments and errors: as ``typed``."""
    before = {field.name: getattr(options, field.name) for field in fields(options)}
    return typed(type(options), before | dict(values), what, place)


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute inside the block, and restore it after it."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


Bound = tuple[str, Callable[[Any], bool]]  # what a number must be, in words, and whether it is
POSITIVE: Bound = ("positive", lambda number: number > 0)
SHARE: Bound = ("in [0, 1)", lambda number: 0 <= number < 1)


def at_least(least: float) -> Bound:
    return f"at least {least}", lambda number: number >= least


def between(least: float, most: float) -> Bound:
    return f"in {least}..{most}", lambda number: least <= number <= most


@dataclass(frozen=True)
class Options:
    """The base of the options of a kind. Each number, also of a tuple, is finite, at most ``largest``, in its bound."""

    family: ClassVar[str]  # names an option in errors: ``network.width``
    largest: ClassVar[float] = 2**16  # more is a slip, or no machine's size
    bounds: ClassVar[Mapping[str, Bound]] = {}  # by option; None is always allowed

    def __post_init__(self) -> None:
        """Raise UserError: a number is outside."""
        for field in fields(self):
            value, name = getattr(self, field.name), f"{self.family}.{field.name}"
            words, fits = self.bounds.get(field.name, ("", None))
            if value == () and fits is not None:
                raise UserError(f"{name} must have at least one number")
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise UserError(f"{name} must be a finite number, not {number}")
                if isinstance(number, int | float) and number > self.largest:
                    raise UserError(f"{name} must be at most {self.largest:,}, not {number:.4g}")
                if isinstance(number, int | float) and fits is not None and not fits(number):
                    raise UserError(f"{name} must be {words}, not {number}")


def interval(text: str, what: str, most: float) -> tuple[float, float]:
    """Read ``0.2-0.8``, an interval of 0..``most``. Raise UserError: it is none."""
    found = re.fullmatch(r"(\d*\.?\d+)-(\d*\.?\d+)", str(text))
    ends = (float(found[1]), float(found[2])) if found else (1.0, 0.0)
    if not ends[0] < ends[1] <= most:
        raise UserError(f"an interval of {what} is written FROM-TO, within 0-{most:g}, not {text!r}")
    return ends


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)

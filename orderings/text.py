"""Plans as short text, ``spiral:outward/cosine:16``, and options as text or plain values.

    plan       ordering[/partition]                 the partition defaults to singles
    ordering   name[:value][:option=value]…         a bare value sets the first option
    name       of a registry, or FILE.py:Class
    value      text, or (text) where it holds any of : + , / = ( )

The type of an option says how its values are written: numbers, true/false (or the two ``words`` of its metadata), one
of some choices, tuples (joined by + for orderings, else by the ``separator`` of its metadata, a comma by default), or
another ordering. ``str(spec)`` is the shortest such text; parsing it gives an equal plan.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from functools import lru_cache
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from orderings.adaptive import Adaptive
from orderings.base import Ordering, Partition
from orderings.grid import InvalidRequest, UnknownName
from orderings.partitions import Singles
from orderings.registry import ADAPTIVE, ORDERINGS, PARTITIONS, Registry, name_of
from orderings.user import FILE_TARGET, is_file_target

T = TypeVar("T", Ordering, Partition, Adaptive)
Order = TypeVar("Order", bound=Ordering | Adaptive)

SPECIAL = frozenset(":+,/=()")


def split(text: str, separator: str) -> list[str]:
    """Cut ``text`` at each ``separator`` outside parentheses.

    Raises:
        InvalidRequest: parentheses do not pair up.
    """
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
        if character == separator and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    if depth != 0:
        raise InvalidRequest(f"parentheses do not pair up in {text!r}")
    return [*parts, text[start:]]


def unwrap(text: str) -> str:
    """Remove one pair of parentheses around the whole text."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")") and len(split(text[1:-1] + "|", "|")) == 2:
        return text[1:-1]
    return text


def wrap(text: str) -> str:
    """Put a text that holds special characters into parentheses."""
    return f"({text})" if SPECIAL & set(text) else text


def read(value: Any, kind: Any, field: Field[Any]) -> Any:
    """Return ``value`` (text, or a plain value from YAML or Python) as the type ``kind`` of its field.

    Raises:
        InvalidRequest: the value is of another type; the message says of which type it must be.
        UnknownName: the value is not among the choices.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # X | None
        if value is None or value == "none":
            return None
        return read(value, next(a for a in arguments if a is not type(None)), field)
    if origin is Literal:
        if str(value) not in arguments:
            raise UnknownName(f"value of {field.name}", str(value), arguments)
        return str(value)
    if origin is tuple:
        return tuple(read(item, arguments[0], field) for item in _items(value, arguments[0], field))
    if isinstance(kind, type) and issubclass(kind, Ordering):
        return _nested(value)
    if kind is bool:
        return _boolean(value, field)
    if kind in (int, float):
        return _number(value, kind, field)
    return unwrap(str(value))


def write(value: Any, field: Field[Any]) -> str:
    """Return the text that ``read`` turns into ``value``."""
    if isinstance(value, tuple):
        separator = "+" if any(isinstance(item, Ordering) for item in value) else field.metadata.get("separator", ",")
        return separator.join(write(item, field) for item in value)
    if isinstance(value, Ordering):
        return wrap(to_text(value))
    if isinstance(value, bool):
        return field.metadata.get("words", ("false", "true"))[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "none" if value is None else wrap(str(value))


def grammar(kind: Any, field: Field[Any]) -> str:
    """Return how values of the field are written, for listings: ``inward|outward``, ``number``, ``4x2``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return "|".join("none" if a is type(None) else grammar(a, field) for a in arguments)
    if origin is Literal:
        return "|".join(arguments)
    if origin is tuple:
        separator = "+" if arguments[0] is Ordering else field.metadata.get("separator", ",")
        item = grammar(arguments[0], field)
        return f"{item}[{separator}{item}…]"
    if kind is bool:
        return "|".join(reversed(field.metadata.get("words", ("false", "true"))))
    return {int: "n", float: "number", str: "text"}.get(kind, "ordering")


def _items(value: Any, kind: Any, field: Field[Any]) -> Sequence[Any]:
    if value == "":
        return ()
    if isinstance(value, str):
        separator = "+" if kind is Ordering else field.metadata.get("separator", ",")
        value = value if kind is Ordering else unwrap(value).replace(",", separator)
        return split(value, separator)
    return value if isinstance(value, Sequence) else (value,)


def _boolean(value: Any, field: Field[Any]) -> bool:
    no, yes = field.metadata.get("words", ("false", "true"))
    known = {"true": True, "yes": True, "1": True, yes: True, "false": False, "no": False, "0": False, no: False}
    text = str(value).lower()
    if text not in known:
        raise UnknownName(f"value of {field.name}", text, {yes, no, "true", "false"})
    return known[text]


def _number(value: Any, kind: type[int] | type[float], field: Field[Any]) -> float:
    wrong = InvalidRequest(f"{field.name} is {'a whole number' if kind is int else 'a number'}, not {value!r}")
    try:
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise ValueError
        number = kind(value)
    except (TypeError, ValueError):
        raise wrong from None
    if not math.isfinite(number):
        raise wrong
    return number


class PlanSpec(NamedTuple, Generic[Order]):
    """What a plan is made of: an ordering, or a rule by which the model finds one, and a partition.

    ``PlanSpec.parse("spiral/cosine:16")`` is ``PlanSpec(Spiral(), Cosine(k=16))``; ``str(spec)`` is its canonical text.
    """

    ordering: Order
    partition: Partition = Singles()

    @overload
    @classmethod
    def parse(cls, text: str, adaptive: Literal[False] = False) -> PlanSpec[Ordering]: ...

    @overload
    @classmethod
    def parse(cls, text: str, adaptive: Literal[True]) -> PlanSpec[Ordering | Adaptive]: ...

    @classmethod
    def parse(cls, text: str, adaptive: bool = False) -> PlanSpec[Any]:
        """Return the plan of a text.

        Args:
            adaptive: accept ``"lowest-entropy/cosine:16"`` too: the model finds the order, in sets of these sizes.

        Raises:
            UnknownName: no such ordering, partition or option; the message gives the nearest name.
            InvalidRequest: a value does not fit its option; or an adaptive order is not accepted, or is no plan.
        """
        head, tail = _cut(text.strip())
        partition = parse_partition(tail) if tail else Singles()
        kind = _kind(head.partition(":")[0])
        if adaptive and kind not in ORDERINGS:
            rule = ADAPTIVE.get(kind) or ADAPTIVE.classes()[0].get(kind)
            if rule is not None and not rule.uses_sampled_values:
                return PlanSpec(parse_adaptive(head), partition)
        return PlanSpec(parse_ordering(head), partition)

    def __str__(self) -> str:
        if self.partition == Singles():
            return to_text(self.ordering)
        cut = to_text(self.partition)
        return f"{to_text(self.ordering)}/{wrap(cut) if '/' in cut.partition('(')[0] else cut}"


def parse_ordering(text: str) -> Ordering:
    """Return the ordering of a text: ``"blocks:4:inner=serpentine"`` is Blocks(size=(4,), inner=Serpentine()).

    Raises:
        UnknownName: no such ordering or option; the message gives the nearest name.
        InvalidRequest: a value does not fit its option.
    """
    return _parse(ORDERINGS, text)


def parse_partition(text: str) -> Partition:
    """Return the partition of a text: ``"cosine:16"`` is Cosine(k=16). Raises as ``parse_ordering``."""
    return _parse(PARTITIONS, text)


def parse_adaptive(text: str) -> Adaptive:
    """Return the rule of a text: ``"confidence:4.5"`` is Confidence(temperature=4.5). Raises as ``parse_ordering``."""
    return _parse(ADAPTIVE, text)


def make_ordering(kind: str, options: Mapping[str, Any]) -> Ordering:
    """Return an ordering from a recipe's plain values: ``("blocks", {"size": 4, "inner": "random"})``.

    ``kind`` may be a short text with its own options, ``spiral:outward``. Raises as ``parse_ordering``.
    """
    return _make(ORDERINGS, kind, options)


def make_partition(kind: str, options: Mapping[str, Any]) -> Partition:
    """Return a partition from a recipe's plain values, as ``make_ordering`` does."""
    return _make(PARTITIONS, kind, options)


@lru_cache(maxsize=1024)
def to_text(component: Ordering | Partition | Adaptive) -> str:
    """Return the canonical short text: options at their defaults are left out, except for a leading number."""
    text, default = name_of(component), type(component)()
    for place, field in enumerate(fields(component)):
        value = getattr(component, field.name)
        if value == getattr(default, field.name) and not (place == 0 and _is_number(value)):
            continue
        written = write(value, field)
        text += f":{written}" if place == 0 else f":{field.name}={written}"
    return text


def as_options(component: Ordering | Partition) -> dict[str, str]:
    """Return every option as text; ``make_ordering(name, as_options(ordering))`` gives an equal ordering."""
    return {f.name: write(getattr(component, f.name), f) for f in fields(component)}


def option_grammar(cls: type) -> dict[str, tuple[str, str]]:
    """Return {option: (how its values are written, its default)} of a class, for listings."""
    kinds, default = get_type_hints(cls), cls()
    return {f.name: (grammar(kinds[f.name], f), write(getattr(default, f.name), f)) for f in fields(cls)}


def _cut(text: str) -> tuple[str, str]:
    """Return the ordering and the partition of a text; the slashes of a path belong to the ordering."""
    first, *rest = split(text, "/")
    kind = _kind(first.partition(":")[0])
    if ORDERINGS.aliases.get(kind, kind) == "file":
        *head, tail = [first, *rest]
        cuts = bool(head) and (
            _kind(tail.partition(":")[0]) in PARTITIONS.names() or FILE_TARGET.match(tail) is not None
        )
        return ("/".join(head), tail) if cuts else (text, "")
    if (target := FILE_TARGET.match(text)) and kind not in ORDERINGS:
        options, *rest = split(text[target.end() :], "/")
        return target[0] + options, "/".join(rest)
    return first, "/".join(rest)


def _parse(family: Registry[T], text: str) -> T:
    text = unwrap(text)
    if target := FILE_TARGET.match(text):
        kind, given = target[0], split(text[target.end() :], ":")[1:]
    else:
        name, *given = split(text, ":")
        kind = _kind(name)
    options: dict[str, str] = {}
    for place, item in enumerate(given):
        pieces = split(item, "=")
        if len(pieces) > 1:
            key, value = pieces[0].strip(), "=".join(pieces[1:])
        elif place == 0:
            key, value = _first(family, kind), item
        else:
            raise InvalidRequest(f"{kind}: a further option is written option=value, not {item!r}")
        if key in options:
            raise InvalidRequest(f"{kind}: {key} is given twice")
        options[key] = value.strip()
    return _make(family, kind, options)


def _kind(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _first(family: Registry[T], kind: str) -> str:
    own = fields(family[kind])  # pyright: ignore[reportArgumentType]
    if not own:
        raise InvalidRequest(f"{kind} has no options")
    return own[0].name


def _make(family: Registry[T], kind: str, options: Mapping[str, Any]) -> T:
    if ":" in kind and not is_file_target(kind):
        if options:
            raise InvalidRequest(f"{kind!r} names its own options: write {', '.join(options)} there, or the name alone")
        return _parse(family, kind)
    cls: Any = family[kind]
    own, kinds = {f.name: f for f in fields(cls)}, get_type_hints(cls)
    for key in options:
        if key not in own:
            raise UnknownName(f"option of {kind}:", key, own)
    return cls(**{key: read(value, kinds[key], own[key]) for key, value in options.items()})


def _nested(value: Any) -> Ordering:
    if isinstance(value, Ordering):
        return value
    if isinstance(value, Mapping):
        return make_ordering(str(value.get("kind")), {k: v for k, v in value.items() if k != "kind"})
    return parse_ordering(unwrap(str(value)))


def _is_number(value: Any) -> bool:
    head = value[0] if isinstance(value, tuple) and value else value
    return isinstance(head, int | float) and not isinstance(head, bool)

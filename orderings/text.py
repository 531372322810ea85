"""Options of a component from text or plain values, and back: one field of a dataclass at a time.

A field's type says how it is written: numbers, true/false (or the two ``words`` of its metadata), one of some choices,
tuples (joined by + for orderings, else by the ``separator`` of its metadata, a comma by default), another ordering.

Plans in short: ``spiral:outward/cosine:16``.

    plan       ordering[/partition]                 the partition defaults to singles
    ordering   name[:value][:option=value]…         a bare value sets the first option
    value      text, or (text) where it holds any of : + , / = ( )

``describe`` writes the shortest such text, and parsing it gives an equal plan.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from orderings.adaptive import Adaptive
from orderings.base import Ordering, Partition
from orderings.grid import InvalidRequest
from orderings.partitions import Singles
from orderings.registry import ALIASES, UnknownName, all_of, find, name_of

SPECIAL = frozenset(":+,/=()")


def split(text: str, separator: str) -> list[str]:
    """``text`` cut at each ``separator`` that is not inside parentheses.

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
    """Without one pair of parentheses around the whole."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")") and len(split(text[1:-1] + "|", "|")) == 2:
        return text[1:-1]
    return text


def wrap(text: str) -> str:
    """In parentheses if it holds characters that mean something around it."""
    return f"({text})" if SPECIAL & set(text) else text


def read(value: Any, kind: Any, field: Field[Any], ordering: Callable[[Any], Ordering]) -> Any:
    """``value`` (text, or a plain value from YAML or Python) as the field's ``kind``; ``ordering`` reads nested ones.

    Raises:
        InvalidRequest: it is no such thing; the message says what is wanted.
        UnknownName: it is none of the choices.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # X | None
        if value is None or value == "none":
            return None
        return read(value, next(a for a in arguments if a is not type(None)), field, ordering)
    if origin is Literal:
        if str(value) not in arguments:
            raise UnknownName(f"value of {field.name}", str(value), arguments)
        return str(value)
    if origin is tuple:
        return tuple(read(item, arguments[0], field, ordering) for item in _items(value, arguments[0], field))
    if isinstance(kind, type) and issubclass(kind, Ordering):
        return ordering(unwrap(value) if isinstance(value, str) else value)
    if kind is bool:
        return _boolean(value, field)
    if kind in (int, float):
        return _number(value, kind, field)
    return unwrap(str(value))


def write(value: Any, field: Field[Any], ordering: Callable[[Ordering], str]) -> str:
    """The text that ``read`` turns into ``value``."""
    if isinstance(value, tuple):
        separator = "+" if any(isinstance(item, Ordering) for item in value) else field.metadata.get("separator", ",")
        return separator.join(write(item, field, ordering) for item in value)
    if isinstance(value, Ordering):
        return wrap(ordering(value))
    if isinstance(value, bool):
        return field.metadata.get("words", ("false", "true"))[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "none" if value is None else wrap(str(value))


def grammar(kind: Any, field: Field[Any]) -> str:
    """How values of the field are written, for listings: ``inward|outward``, ``number``, ``4x2``."""
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


T = TypeVar("T", Ordering, Partition, Adaptive)


def parse_ordering(text: str) -> Ordering:
    """``"blocks:4:inner=serpentine"`` → Blocks(size=(4,), inner=Serpentine()).

    Raises:
        UnknownName: no such ordering or option; the message holds the nearest.
        InvalidRequest: a value is not what its option takes.
    """
    return _parse(Ordering, text)


def parse_partition(text: str) -> Partition:
    """``"cosine:16"`` → Cosine(k=16). Raises as ``parse_ordering``."""
    return _parse(Partition, text)


def parse_adaptive(text: str) -> Adaptive:
    """``"confidence:4.5"`` → Confidence(temperature=4.5). Raises as ``parse_ordering``."""
    return _parse(Adaptive, text)


def parse_plan(text: str) -> tuple[Ordering, Partition]:
    """``"spiral/cosine:16"`` → (Spiral(), Cosine(k=16)). Raises as ``parse_ordering``."""
    *head, tail = split(text.strip(), "/")
    if not head or _is_path(head[0], tail):
        return parse_ordering(text), Singles()
    return parse_ordering("/".join(head)), parse_partition(tail)


def parse_any_plan(text: str) -> tuple[Ordering | Adaptive, Partition]:
    """As ``parse_plan``, and ``"lowest-entropy/cosine:16"`` → (LowestEntropy(), Cosine(k=16)): a rule that finds the
    order from the model, in sets of the partition's sizes. Rules that look at sampled values are no plan.

    Raises as ``parse_ordering``.
    """
    head, *tail = split(text.strip(), "/")
    rule = all_of(Adaptive).get(_kind(head.partition(":")[0]))
    if rule is None or rule.uses_sampled_values:
        return parse_plan(text)
    return parse_adaptive(head), parse_partition("/".join(tail)) if tail else Singles()


def make_ordering(kind: str, options: Mapping[str, Any]) -> Ordering:
    """An ordering from plain values, as a recipe holds them: ``("blocks", {"size": 4, "inner": "random"})``.

    Raises as ``parse_ordering``.
    """
    return _make(Ordering, kind, options)


def make_partition(kind: str, options: Mapping[str, Any]) -> Partition:
    """A partition from plain values, as a recipe holds them. Raises as ``parse_ordering``."""
    return _make(Partition, kind, options)


def describe(ordering: Ordering | Adaptive, partition: Partition | None = None) -> str:
    """The canonical short text: options at their defaults are left out, but for a leading number."""
    text = _write(ordering)
    return text if partition is None or partition == Singles() else f"{text}/{_write(partition)}"


def describe_partition(partition: Partition) -> str:
    """The canonical short text of a partition alone: ``"cosine:16"``."""
    return _write(partition)


def as_options(component: Ordering | Partition) -> dict[str, str]:
    """Every option as text; ``make_ordering(name, as_options(ordering))`` gives it back."""
    return {f.name: write(getattr(component, f.name), f, _write) for f in fields(component)}


def option_grammar(cls: type) -> dict[str, tuple[str, str]]:
    """{option: (how its values are written, its default)} of a class, for listings."""
    kinds, default = get_type_hints(cls), cls()
    return {f.name: (grammar(kinds[f.name], f), write(getattr(default, f.name), f, _write)) for f in fields(cls)}


def _is_path(head: str, tail: str) -> bool:
    """``file:orders/mine.json``: the slash belongs to the path."""
    kind = ALIASES.get(head.partition(":")[0].strip(), head.partition(":")[0].strip())
    return kind == "file" and tail.partition(":")[0].strip() not in all_of(Partition)


def _parse(base: type[T], text: str) -> T:
    name, *given = split(unwrap(text), ":")
    kind = _kind(name)
    options: dict[str, str] = {}
    for place, item in enumerate(given):
        pieces = split(item, "=")
        if len(pieces) > 1:
            key, value = pieces[0].strip(), "=".join(pieces[1:])
        elif place == 0:
            key, value = _first(base, kind), item
        else:
            raise InvalidRequest(f"{kind}: a further option is written option=value, not {item!r}")
        if key in options:
            raise InvalidRequest(f"{kind}: {key} is given twice")
        options[key] = value.strip()
    return _make(base, kind, options)


def _kind(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _first(base: type, kind: str) -> str:
    own = fields(find(base, kind))
    if not own:
        raise InvalidRequest(f"{kind} has no options")
    return own[0].name


def _make(base: type[T], kind: str, options: Mapping[str, Any]) -> T:
    cls = find(base, kind)
    own, kinds = {f.name: f for f in fields(cls)}, get_type_hints(cls)
    for key in options:
        if key not in own:
            raise UnknownName(f"option of {kind}:", key, own)
    return cls(**{key: read(value, kinds[key], own[key], _nested) for key, value in options.items()})


def _nested(value: Any) -> Ordering:
    if isinstance(value, Ordering):
        return value
    if isinstance(value, Mapping):
        return make_ordering(str(value.get("kind")), {k: v for k, v in value.items() if k != "kind"})
    return parse_ordering(str(value))


def _write(component: Ordering | Partition | Adaptive) -> str:
    text, default = name_of(component), type(component)()
    for place, field in enumerate(fields(component)):
        value = getattr(component, field.name)
        if value == getattr(default, field.name) and not (place == 0 and _is_number(value)):
            continue
        written = write(value, field, _write)
        text += f":{written}" if place == 0 else f":{field.name}={written}"
    return text


def _is_number(value: Any) -> bool:
    head = value[0] if isinstance(value, tuple) and value else value
    return isinstance(head, int | float) and not isinstance(head, bool)

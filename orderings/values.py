"""Options of a component from text or plain values, and back: one field of a dataclass at a time.

A field's type says how it is written: numbers, true/false (or the two ``words`` of its metadata), one of some choices,
tuples (joined by + for orderings, else by the ``separator`` of its metadata, a comma by default), another ordering.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from dataclasses import Field
from typing import Any, Literal, Union, get_args, get_origin

from orderings.base import Ordering
from orderings.grid import InvalidRequest
from orderings.registry import UnknownName

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

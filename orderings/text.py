"""Plans as short text, ``spiral:outward/cosine:16``, and options as text or plain values.

    plan       ordering[/partition]                 the partition defaults to singles; or the name of a published plan
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
from orderings.grid import InvalidRequest, UnknownName, shortened
from orderings.partitions import Singles
from orderings.registry import ADAPTIVE, ORDERINGS, PARTITIONS, PLANS, Registry, name_of
from orderings.symmetry import Symmetric, turned
from orderings.user import FILE_TARGET

T = TypeVar("T", Ordering, Partition, Adaptive)
Order = TypeVar("Order", bound=Ordering | Adaptive)


DEEPEST = 16  # orderings inside orderings
SYMMETRY = {field.name: field for field in fields(Symmetric)[1:]}  # options of every ordering of a grid


def split(text: str, separator: str) -> list[str]:
    """Cut ``text`` at each ``separator`` outside parentheses. Raise InvalidRequest if these do not pair up."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth > DEEPEST:
            raise InvalidRequest(f"parentheses nest at most {DEEPEST} deep, not as in {shortened(text)!r}")
        if depth < 0:
            break
        if character == separator and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    if depth != 0:
        raise InvalidRequest(f"parentheses do not pair up in {shortened(text)!r}")
    return [*parts, text[start:]]


def _unwrap(text: str) -> str:
    """Remove one pair of parentheses around the whole text."""
    text = text.strip()
    whole = text.startswith("(") and text.endswith(")") and len(split(text[1:-1] + "|", "|")) == 2
    return text[1:-1] if whole else text


def _wrap(text: str) -> str:
    """Put a text that holds special characters into parentheses."""
    return f"({text})" if set(":+,/=()") & set(text) else text


def _words(kind: Any, field: Field[Any]) -> dict[str, Any] | None:
    """Return {text: value} of an option with a few values, the usual texts first; None of any other option."""
    if get_origin(kind) is Literal:
        return {word: word for word in get_args(kind)}
    if kind is not bool:
        return None
    no, yes = field.metadata.get("words", ("false", "true"))
    return {yes: True, no: False, "true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def _separator(item: Any, field: Field[Any]) -> str:
    """Return what stands between the items of a tuple, of this type."""
    return "+" if item is Ordering else field.metadata.get("separator", ",")


def _read(value: Any, kind: Any, field: Field[Any]) -> Any:
    """Return ``value`` (text, or a plain value from YAML or Python) as the type ``kind`` of its field.

    Raise InvalidRequest, with the type it must be or the nearest of its choices.
    """
    arguments = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):  # X | None
        return None if value in (None, "none") else _read(value, arguments[0], field)
    if (words := _words(kind, field)) is not None:
        if (text := str(value).lower()) not in words:
            raise UnknownName(f"value of {field.name}", text, words)
        return words[text]
    if get_origin(kind) is tuple:
        item, separator = arguments[0], _separator(arguments[0], field)
        if isinstance(value, str):
            value = value if item is Ordering else _unwrap(value).replace(",", separator)
            value = split(value, separator) if value else ()
        return tuple(_read(one, item, field) for one in (value if isinstance(value, Sequence) else (value,)))
    if kind is Ordering:
        if isinstance(value, Mapping):
            try:
                return parse_ordering(str(value.get("kind")), {k: v for k, v in value.items() if k != "kind"})
            except RecursionError:
                raise InvalidRequest(f"{field.name} holds too many orderings inside orderings") from None
        return value if isinstance(value, Ordering) else parse_ordering(str(value))
    if kind in (int, float):
        try:
            number = math.nan if isinstance(value, bool) or (kind is int and isinstance(value, float)) else kind(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            what = "a whole number" if kind is int else "a number"
            raise InvalidRequest(f"{field.name} is {what}, not {shortened(repr(value))}")
        return number
    return _unwrap(str(value))


def _write(value: Any, field: Field[Any]) -> str:
    """Return the text that ``_read`` turns into ``value``."""
    if isinstance(value, tuple):
        item = Ordering if any(isinstance(item, Ordering) for item in value) else None
        return _separator(item, field).join(_write(item, field) for item in value)
    if isinstance(value, Ordering):
        return _wrap(to_text(value))
    if isinstance(value, bool):
        return field.metadata.get("words", ("false", "true"))[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "none" if value is None else _wrap(str(value))


def _grammar(kind: Any, field: Field[Any]) -> str:
    """Return how values of the field are written, for listings: ``inward|outward``, ``number``, ``4x2``."""
    arguments = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return f"{_grammar(arguments[0], field)}|none"
    if get_origin(kind) is tuple:
        item = _grammar(arguments[0], field)
        return f"{item}[{_separator(arguments[0], field)}{item}…]"
    if (words := _words(kind, field)) is not None:
        return "|".join(list(words)[:2] if kind is bool else words)
    return {int: "n", float: "number", str: "text"}.get(kind, "ordering")


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
            InvalidRequest: as ``parse_ordering``; or an adaptive order is not accepted, or is no plan.
        """
        head, tail = _cut(PLANS.get(_kind(text), text.strip()))
        cut = [parse_partition(tail)] if tail else []
        kind = _kind(head.partition(":")[0])
        if adaptive and kind not in ORDERINGS:
            rule = ADAPTIVE.get(kind) or ADAPTIVE.classes()[0].get(kind)
            if rule is not None and not rule.uses_sampled_values:
                return PlanSpec(parse_adaptive(head), *cut)
        if kind in PARTITIONS and kind not in ORDERINGS:
            raise InvalidRequest(f"{head} is a partition: write an ordering before it, such as random/{head}")
        return PlanSpec(parse_ordering(head), *cut)

    def __str__(self) -> str:
        if isinstance(self.partition, Singles):
            return to_text(self.ordering)
        cut = to_text(self.partition)
        return f"{to_text(self.ordering)}/{_wrap(cut) if '/' in cut.partition('(')[0] else cut}"


def parse_ordering(text: str, options: Mapping[str, Any] = {}) -> Ordering:
    """Return the ordering of a text: ``"blocks:4:inner=serpentine"`` is Blocks(size=(4,), inner=Serpentine()).

    ``options`` are plain values, as a recipe has them: ``("blocks", {"size": 4, "inner": "random"})``.

    Raise UnknownName with the nearest name, or InvalidRequest for a value that does not fit its option.
    """
    return _parse(ORDERINGS, text, options)


def parse_partition(text: str, options: Mapping[str, Any] = {}) -> Partition:
    """Return the partition of a text: ``"cosine:16"`` is Cosine(k=16). Arguments and errors as ``parse_ordering``."""
    return _parse(PARTITIONS, text, options)


def parse_adaptive(text: str) -> Adaptive:
    """Return the rule of a text: ``"confidence:4.5"`` is Confidence(temperature=4.5). Raises as ``parse_ordering``."""
    return _parse(ADAPTIVE, text, {})


@lru_cache(maxsize=1024)
def to_text(component: Ordering | Partition | Adaptive) -> str:
    """Return the canonical short text: options at their defaults are left out, except for a leading number."""
    if isinstance(component, Symmetric):
        return ":".join([to_text(component.of), *(f"{name}={value}" for name, value in _symmetry(component).items())])
    text, default = name_of(component), type(component)()
    for place, field in enumerate(fields(component)):
        value = getattr(component, field.name)
        first = value[0] if isinstance(value, tuple) and value else value
        leading = place == 0 and isinstance(first, int | float) and not isinstance(first, bool)
        if leading or value != getattr(default, field.name):
            text += f":{field.name}=" if place else ":"
            text += _write(value, field)
    return text


def as_options(component: Ordering | Partition) -> dict[str, str]:
    """Return the options as text, as recipes hold them; ``parse_ordering(name, as_options(ordering))`` is equal."""
    if isinstance(component, Symmetric):
        return as_options(component.of) | _symmetry(component)
    values = {f: getattr(component, f.name) for f in fields(component)}
    return {
        f.name: _write(value, f) for f, value in values.items() if value != f.default or "omitted" not in f.metadata
    }


def _symmetry(component: Symmetric) -> dict[str, str]:
    """Return the options that are on: an ordering without a symmetry is written as ever."""
    return {
        name: _write(value, field)
        for name, field in SYMMETRY.items()
        if (value := getattr(component, name)) != field.default
    }


def option_grammar(cls: type) -> dict[str, tuple[str, str]]:
    """Return {option: (how its values are written, its default)} of a class, for listings."""
    kinds, default = get_type_hints(cls), cls()
    return {f.name: (_grammar(kinds[f.name], f), _write(getattr(default, f.name), f)) for f in fields(cls)}


def _cut(text: str) -> tuple[str, str]:
    """Return the ordering and the partition of a text; the slashes of a path belong to the ordering."""
    first, *rest = split(text, "/")
    kind = _kind(first.partition(":")[0])
    if ORDERINGS.aliases.get(kind, kind) == "file":
        tail = rest[-1] if rest else ""
        cuts = _kind(tail.partition(":")[0]) in PARTITIONS.names() or FILE_TARGET.match(tail) is not None
        return ("/".join([first, *rest[:-1]]), tail) if cuts else (text, "")
    if (target := FILE_TARGET.match(text)) and kind not in ORDERINGS:
        options, *rest = split(text[target.end() :], "/")
        first = target[0] + options
    return first, "/".join(rest)


def _kind(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _parse(family: Registry[T], text: str, options: Mapping[str, Any]) -> T:
    text = _unwrap(text)
    if target := FILE_TARGET.match(text):
        kind, given = target[0], split(text[target.end() :], ":")[1:]
    else:
        name, *given = split(text, ":")
        kind = _kind(name)
    if given and options:
        raise InvalidRequest(f"{text!r} names its own options: write {', '.join(options)} there, or the name alone")
    cls: Any = family[kind]
    own, kinds, values = {f.name: f for f in fields(cls)}, get_type_hints(cls), dict(options)
    for place, item in enumerate(given):
        key, *value = split(item, "=")
        if not value:
            if not own:
                raise InvalidRequest(f"{kind} has no options")
            if place:
                raise InvalidRequest(f"{kind}: a further option is written option=value, not {item!r}")
            key, value = next(iter(own)), [item]
        if (key := key.strip()) in values:
            raise InvalidRequest(f"{kind}: {key} is given twice")
        values[key] = "=".join(value).strip()
    grid_options = {key: field for key, field in SYMMETRY.items() if key not in own} if family is ORDERINGS else {}
    for key in values:
        if key not in own and key not in grid_options:
            raise UnknownName(f"option of {kind}:", key, own | grid_options)
    read = {key: _read(value, kinds[key], own[key]) for key, value in values.items() if key in own}
    component: Any = cls(**read)
    hints = get_type_hints(Symmetric)
    symmetry = {key: _read(value, hints[key], grid_options[key]) for key, value in values.items() if key not in own}
    if symmetry:
        component = turned(component, *Symmetric(component, **symmetry).element)
    return component

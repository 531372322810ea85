"""Values of ``key=value`` on the command line.

A value is ``true``, ``false`` or ``null``, a number, a list in ``[]``, a mapping in ``{}``, or text in quotes as YAML
writes them; everything else is the text itself, whatever letters it has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from mar.core.errors import UserError

_WORDS = {"true": True, "false": False, "null": None}
_INT = re.compile(r"[-+]?(0|[1-9][\d_]*)")
_FLOAT = re.compile(r"[-+]?((\d[\d_]*\.\d*|\.\d+)([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.?inf|\.?nan)", re.IGNORECASE)
_PAIRS = (("[", "]"), ("{", "}"), ("'", "'"), ('"', '"'))


class WrittenList(list[Any]):
    """A list with the text that it was written as: an option that takes text takes ``[SEP]``."""

    text = ""


def value_of(text: str) -> Any:
    """Return the value of a text."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    plain = text.strip()
    if plain.lower() in _WORDS:
        return _WORDS[plain.lower()]
    if _INT.fullmatch(plain):
        return int(plain)
    if _FLOAT.fullmatch(plain):
        return float(re.sub(r"\.(?=inf|nan)", "", plain.lower()))
    if len(plain) < 2 or (plain[0], plain[-1]) not in _PAIRS:
        return text
    try:
        found: Any = OmegaConf.to_container(OmegaConf.create(f"value: {plain}"))["value"]  # type: ignore[index,call-overload]
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError):
        return text
    if isinstance(found, list):
        found = WrittenList(found)
        found.text = text
    return found


def text_of(value: Any) -> str | None:
    """Return the text that a number or a list was written as; None: it is of another type."""
    if isinstance(value, WrittenList):
        return value.text
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def assigned(pairs: Iterable[str], what: str) -> dict[str, Any]:
    """Return ``key.of.section=value`` pairs as nested mappings. Raise UserError: one is not written so."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{what} is written key=value, not {pair!r}")
        value = value_of(text)
        for part in reversed(key.split(".")):
            value = {part: value}
        _merge(found, value)
    return found


def overridden(content: dict[str, Any], pairs: Iterable[str], components: Collection[str]) -> dict[str, Any]:
    """Return nested mappings with ``key=value`` pairs in them.

    Args:
        components: dotted keys of sections with a ``kind``: ``network=made`` is ``network.kind=made``, and another kind
            drops the options of the section.

    Raises:
        UserError: as ``assigned``.
    """
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if key in components:
            key += ".kind"
        if key.removesuffix(".kind") in components:
            content = _without(content, key.removesuffix(".kind"))
        change, content = assigned([f"{key}{equals}{text}"], "an override"), dict(content)
        _merge(content, change)
    return content


def merged(content: dict[str, Any], change: dict[str, Any], components: Collection[str]) -> dict[str, Any]:
    """Return nested mappings with those of ``change`` in them; ``components``: as in ``overridden``."""
    for key in components:
        section: Any = change
        for part in key.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and "kind" in section:
            content = _without(content, key)
    content = dict(content)
    _merge(content, change)
    return content


def _without(content: dict[str, Any], key: str) -> dict[str, Any]:
    """Return ``content`` without the dotted ``key``."""
    first, _, rest = key.partition(".")
    if not rest:
        return {k: v for k, v in content.items() if k != first}
    inner = content.get(first)
    return {**content, first: _without(inner, rest)} if isinstance(inner, dict) else content


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    """Put ``change`` into nested mappings; anything but a mapping replaces what was there."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            into[key] = dict(into[key])
            _merge(into[key], value)
        else:
            into[key] = value

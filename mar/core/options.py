"""Options of a component: values of a recipe or the command line as its dataclass, each of its field's type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mar.core.errors import UserError, unknown


def typed(cls: type, values: Mapping[str, Any], what: str, place: str = "") -> Any:
    """``cls(**values)``.

    Args:
        what: whose the options are, before the name of one that does not exist.
        place: before the name of one whose value is not taken.

    Raises:
        UserError: no such option, with the nearest one; or a value that it does not take.
    """
    known = [field.name for field in fields(cls)]
    for name in values:
        if name not in known:
            raise unknown(what, name, known)
    try:
        return _adapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{place}{where}: {first['msg']}, got {first['input']!r}") from None


def replaced(options: Any, values: Mapping[str, Any], what: str, place: str = "") -> Any:
    """``options`` with some other ``values``. Arguments, errors: as ``typed``."""
    before = {field.name: getattr(options, field.name) for field in fields(options)}
    return typed(type(options), before | dict(values), what, place)


@cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)

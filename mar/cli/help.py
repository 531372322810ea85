"""Print names with their texts (``--help``, lists) as wide as the terminal, without cutting a word or an example."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

_NAMES = 26  # columns for the names of options; longer ones have a line of their own
_WORDS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def page(command: Any, ctx: Any) -> str:
    """Return usage, description, and the options or the commands by panel."""
    width = _width()
    found = [one for one in command.get_params(ctx) if not getattr(one, "hidden", False)]
    arguments = [one for one in found if one.param_type_name == "argument"]
    options = [one for one in found if one.param_type_name == "option"]
    group = hasattr(command, "list_commands")
    usage = [ctx.command_path, *(_argument(one, True) for one in arguments), "COMMAND" if group else "[OPTIONS]"]
    panels: dict[str, list[tuple[str, str]]] = {}
    if group:
        for name in command.list_commands(ctx):
            summary = command.get_command(ctx, name).help.partition("\n\n")[0]
            panels.setdefault(command.panel(name), []).append((name, summary.replace("\n", " ").replace("`", "")))
    else:
        panels = {"Arguments": [(_argument(one), one.help or "") for one in arguments], "Options": []}
        for one in options:
            panels.setdefault(getattr(one, "rich_help_panel", "") or "Options", []).append((_names(one), _told(one)))
    lines = [_look(f"Usage: {' '.join(usage)}", bold=True), "", *_described(command.help or "", width), *listed(panels)]
    if group:
        lines += ["", *_wrapped("Options: " + ", ".join(name for one in options for name in one.opts), width)]
    return "\n".join(lines) + "\n"


def listed(panels: Mapping[str, Sequence[tuple[str, str]]]) -> list[str]:
    """Return the lines of names and their texts under titles; a line of a text is wrapped by itself."""
    width, lines = _width(), list[str]()
    indent = min(_NAMES, max((len(left) for rows in panels.values() for left, _ in rows), default=0) + 4)
    for title, rows in panels.items():
        lines += ["", _look(title, bold=True)] if rows else []
        for left, text in rows:
            body = [line for part in text.splitlines() for line in _wrapped(part, width - indent)] or [""]
            lines.append(f"  {_look(left, fg='cyan')}")
            if len(left) + 4 <= indent:
                lines[-1] += " " * (indent - len(left) - 2) + body.pop(0)
            lines += [" " * indent + line for line in body]
    return lines


def name_values(options: Sequence[Any], hints: Mapping[str, Any]) -> None:
    """Show the type of the value of each option that names none in its help."""
    for one in options:
        is_value = one.param_type_name == "option" and not getattr(one, "is_flag", False)
        if is_value and not one.metavar and one.name in hints:
            one.metavar = _metavar(hints[one.name])


def _metavar(hint: Any) -> str:
    """Return the word for a value: ``Annotated[int | None, …]`` -> "N", a Literal -> "a|b"."""
    kinds = [one for one in get_args(hint) if one is not NoneType]
    if get_origin(hint) is Literal:
        return "|".join(kinds)
    if get_origin(hint) is Annotated or (get_origin(hint) is not None and len(kinds) == 1):
        return _metavar(kinds[0])
    return _WORDS.get(hint) or (" ".join(map(_metavar, kinds)) if kinds else "TEXT")


def _argument(one: Any, usage: bool = False) -> str:
    name = (one.metavar or one.name.upper()) + ("..." if one.nargs != 1 else "")
    return name if one.required or not usage else f"[{name}]"


def _names(one: Any) -> str:
    names = ", ".join(sorted(one.opts, key=len)) + "".join(f" / {name}" for name in one.secondary_opts)
    return names if getattr(one, "is_flag", False) else f"{names} {one.metavar or 'TEXT'}"


def _told(one: Any) -> str:
    """Return the text of an option with its default, if that tells anything."""
    default, text = one.default, one.help or ""
    shown = isinstance(default, int | float | str | Path) and not isinstance(default, bool) and str(default)
    return f"{text} [{default}]" if shown else text


def _described(text: str, width: int) -> list[str]:
    """Return the paragraphs of a docstring; examples (indented lines) are continued with a backslash."""
    lines: list[str] = []
    for block in text.replace("`", "").split("\n\n"):
        lines += [""] if lines else []
        if block.startswith("    "):
            for example in block.splitlines():
                lines += " \\\n".join(_wrapped(example.strip(), width - 4, "  ", "      ")).split("\n")
        else:
            lines += _wrapped(" ".join(block.split()), width)
    return lines


def _width() -> int:
    return max(40, min(100, shutil.get_terminal_size().columns))


def _wrapped(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def _look(text: str, **style: Any) -> str:
    return text if os.environ.get("NO_COLOR") else typer.style(text, **style)

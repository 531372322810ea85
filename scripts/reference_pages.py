"""Tables of the site that are made from the code: every recipe, and every command with its options.

usage: python scripts/reference_pages.py recipes|commands
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import typer

from mar.cli import main as cli
from mar.config import recipe_names, recipe_path


def recipes() -> str:
    """Return a Markdown table of the shipped recipes, from their headers."""
    rows = ["| recipe | content | time, score |", "|---|---|---|"]
    for name in recipe_names():
        text = recipe_path(name).read_text()
        header = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
        told = " ".join(header[1:])
        content, _, cost = re.sub(r" (?=Time( and score)?: )", "\n", told, count=1).partition("\n")
        command = f"`{header[0]}`" if header and header[0].startswith("mar") else f"`mar train {name}`"
        rows.append(f"| **{name}**<br>{_cell(command)} | {_cell(content)} | {_cell(cost)} |")
    return "\n".join(rows)


def commands() -> str:
    """Return a Markdown section for each command: help, examples, arguments and options."""
    return "\n\n".join(_section(name, command) for name, command in _leaves(typer.main.get_command(cli.app)))


def _leaves(command: Any, name: str = "mar") -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word in command.commands:
        yield from _leaves(command.get_command(None, word), f"{name} {word}")


def _section(name: str, command: Any) -> str:
    text, _, examples = (command.help or "").partition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    found = [f"## {name}", " ".join(text.split()), "```bash\n" + "\n".join(lines) + "\n```" if lines else ""]
    rows = [row for parameter in command.params if (row := _row(parameter))]
    if rows:
        found.append("\n".join(["| argument, option | meaning | default |", "|---|---|---|", *rows]))
    return "\n\n".join(part for part in found if part)


def _row(parameter: Any) -> str:
    names = (
        [parameter.name.upper()]
        if parameter.param_type_name == "argument"
        else [*parameter.opts, *parameter.secondary_opts]
    )
    if "--help" in names or getattr(parameter, "hidden", False):
        return ""
    default = (
        ""
        if parameter.default in (None, (), [], "", False) or callable(parameter.default)
        else f"`{parameter.default}`"
    )
    cells = " ".join(f"`{name}`" for name in names), getattr(parameter, "help", "") or "", default
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    print({"recipes": recipes, "commands": commands}[sys.argv[1]]())

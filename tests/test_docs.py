"""The pages of the repository: every link, path, command, option and recipe in them exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from omegaconf import OmegaConf

from mar import config
from mar.bench.contenders import SHAPES
from mar.cli import main as cli
from mar.experiments.grid import read as read_grid
from scripts import reference_pages

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
PLACEHOLDER = re.compile(r"/(mine|FAMILY)\b")
NAMED_PATH = re.compile(r"`((?:mar|orderings|scripts|tests|docs|results)/[\w./-]+)`")


def tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def pages() -> list[str]:
    return tracked("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "results/*.md")


def parts(page: str) -> tuple[str, list[str]]:
    """Return the prose of a page and the lines of its code blocks (fenced, or indented after an empty line)."""
    prose, code, fenced, before = [], [], False, ""
    for line in (ROOT / page).read_text().splitlines():
        fence = line.lstrip().startswith("```")
        indented = line.startswith("    ") and (not before.strip() or before.startswith("    "))
        (code if (fenced and not fence) or indented else prose).append("" if fence else line)
        fenced, before = fenced != fence, line
    return "\n".join(prose), code


@cache
def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, by GitHub's rule."""
    found: set[str] = set()
    for heading in HEADING.findall(parts(page)[0]):
        slug = base = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while slug in found:
            slug = f"{base}-{(number := number + 1)}"
        found.add(slug)
    return found


def commands(code: Sequence[str]) -> Iterator[list[str]]:
    """Yield the arguments of every ``mar`` in lines of code, with any launcher."""
    lines = "\n".join(code).replace("\\\n", " ").splitlines()
    for command in (part for line in lines for part in line.split("&&")):
        if re.match(r"\s*(\w+=\S+ )*(mar|\S+ .*-m mar) ", command):
            words = shlex.split(command, comments=True)
            yield words[words.index("mar") + 1 :]


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with its name, e.g. ``tokenizer train``."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word in command.commands:
        yield from leaves(command.get_command(None, word), f"{name} {word}".strip())


COMMANDS = dict(leaves(typer.main.get_command(cli.app)))
OPTIONS = {name for parameter in typer.main.get_command(cli.app).params for name in parameter.opts}


def refusal(arguments: list[str]) -> str | None:
    """Return the error of a command line (command, option, value, recipe or recipe key); None if it is valid."""
    if arguments[0].startswith("-"):
        return None if arguments[0] in OPTIONS else f"mar has no option {arguments[0]}"
    words = 1 if arguments[0] in COMMANDS else 2
    name = " ".join(arguments[:words])
    if name not in COMMANDS:
        return f"no command {name!r}"
    try:
        values = COMMANDS[name].make_context(name, arguments[words:]).params
        recipe, overrides = values.get("name") or values.get("recipe") or "", values.get("overrides") or []
        is_file = recipe.upper() == recipe or recipe.endswith(".yaml") or "/" in recipe
        if name == "ablate" and not is_file:
            read_grid(recipe, overrides)
        elif name in ("train", "bench") and not is_file and recipe not in SHAPES:
            config.read(recipe, overrides)
    except Exception as error:
        return str(error)
    return None


def test_every_link_and_picture_leads_to_a_file_of_the_repository_and_to_a_heading_of_it():
    files, broken = set(tracked()), []
    for page in pages():
        for target in LINK.findall(parts(page)[0]):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = str((ROOT / page).parent.joinpath(path).resolve().relative_to(ROOT)) if path else page
            if file not in files or (anchor and anchor not in anchors(file)):
                broken.append(f"{page}: {target}")
    assert not broken


def test_every_path_in_the_text_exists():
    names = [
        (page, name) for page in pages() for name in NAMED_PATH.findall(parts(page)[0]) if not PLACEHOLDER.search(name)
    ]
    assert names and not [(page, name) for page, name in names if not (ROOT / name).exists()]


def test_every_command_line_is_understood_and_its_recipe_is_read():
    wrong, count = [], 0
    for page in pages():
        for arguments in commands(parts(page)[1]):
            count += 1
            if (said := refusal(arguments)) is not None:
                wrong.append(f"{page}: mar {' '.join(arguments)}: {said}")
    assert count > 100 and not wrong


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_examples_of_a_command_s_help_are_understood(name):
    found = list(commands((COMMANDS[name].help or "").splitlines()))
    wrong = [f"mar {' '.join(arguments)}: {said}" for arguments in found if (said := refusal(arguments)) is not None]
    assert not wrong


def test_the_generated_pages_hold_every_recipe_and_every_command():
    recipes, reference = reference_pages.recipes(), reference_pages.commands()
    assert not [name for name in config.recipe_names() if f"| **{name}**" not in recipes]
    assert not [name for name in COMMANDS if f"## mar {name}\n" not in reference]
    assert "| `--plans` |" in reference and "| `RUN` | A run folder. |" in reference


@pytest.mark.parametrize(
    "command",
    ["trian digits", "train digts", "train digits train.iteration=9", "sample runs/x --guidence 2", "fid x -n y"],
)
def test_a_wrong_command_line_would_be_found(command):
    assert refusal(command.split()) is not None


def test_the_bibtex_entry_says_what_the_citation_file_and_the_package_say():
    citation: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "CITATION.cff"))
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entry = re.search(r"@software\{.*?\n\}", (ROOT / "README.md").read_text(), re.DOTALL)
    assert entry is not None
    found = {key: value.strip("{}") for key, value in re.findall(r"(\w+)\s+= \{(.*)\},", entry[0])}
    authors = " and ".join(one["name"] for one in citation["authors"])
    assert found == {"title": citation["title"], "author": authors, "version": citation["version"]}
    assert (package["version"], package["authors"]) == (citation["version"], citation["authors"])
    assert citation.get("repository-code") == package.get("urls", {}).get("Repository")

"""The environment of the scripts: .venv of the checkout or one that they made, never another project's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "environment.sh"
PYTHON = """#!/usr/bin/env bash
echo "$0 $*" >> "$LOG"
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-I -c") cat "$(dirname "$0")/holds" 2>/dev/null ;;
esac
exit 0
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a stand-in for Python that writes down its calls."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPT, folder / "scripts")
    for name in ("pyproject.toml", "constraints.txt", "mar/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    python(tmp_path / "base")
    return folder


def python(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(PYTHON)
    (folder / "bin" / "python").chmod(0o755)
    return folder


def source(checkout: Path, extras: str = "", **environment: Path) -> tuple[Path, str, list[str]]:
    """Source the file; return the environment, what was said, and the environments that pip installed into."""
    log = checkout.parent / "log"
    log.write_text("")
    clean = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "MAR_VENV", "PYTHON")}
    given = {key: str(value) for key, value in environment.items()}
    done = subprocess.run(
        ["bash", "-c", f'source {checkout}/scripts/environment.sh "{extras}"; echo "$VIRTUAL_ENV"; command -v python'],
        env={**clean, "PYTHON": str(checkout.parent / "base/bin/python"), "LOG": str(log), **given},
        cwd=checkout.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    chosen, first_python = done.stdout.split()
    assert first_python == f"{chosen}/bin/python"
    installed = [
        line.split()[0].removesuffix("/bin/python") for line in log.read_text().splitlines() if " pip " in line
    ]
    return Path(chosen), done.stderr, installed


def test_a_fresh_checkout_makes_its_own_and_installs_once(checkout):
    own = checkout / ".venv"
    assert source(checkout)[::2] == (own, [str(own)])
    assert source(checkout)[::2] == (own, []) and source(checkout, "test,check")[2] == [str(own)]
    assert source(checkout, VIRTUAL_ENV=own) == (own, f"environment: {own}\n", [])


def test_another_projects_active_environment_is_left_alone_and_named(checkout, tmp_path):
    foreign, own = python(tmp_path / "foreign"), checkout / ".venv"
    (foreign / ".mar-orderings-").write_text("/another/checkout 1 2")
    chosen, said, installed = source(checkout, VIRTUAL_ENV=foreign)
    assert (chosen, installed) == (own, [str(own)]) and f"not the active {foreign}" in said


def test_an_environment_that_was_asked_for_is_made_and_then_used_when_active(checkout, tmp_path):
    mine = tmp_path / "mine"
    assert source(checkout, MAR_VENV=mine)[::2] == (mine, [str(mine)])
    assert source(checkout, VIRTUAL_ENV=mine)[::2] == (mine, [])


def test_an_environment_that_holds_the_checkout_is_used_as_it_is_but_takes_no_extras(checkout, tmp_path):
    holding = python(tmp_path / "holding")
    (holding / "bin" / "holds").write_text(str(checkout / "mar" / "__init__.py"))
    assert source(checkout, VIRTUAL_ENV=holding)[::2] == (holding, [])
    assert source(checkout, "docs", VIRTUAL_ENV=holding)[::2] == (checkout / ".venv", [str(checkout / ".venv")])

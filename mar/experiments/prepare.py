"""What the recipes of a grid read and somebody has to make first: autoencoders, caches of latents.

    OUT/prepared/NUMBER.json    one of the grid's ``prepare`` commands that has ended well

Each is a ``mar`` command, which goes on where it was stopped. To run it again would train nothing but score and check
everything anew, so what has ended well is not run again as long as what it made (its ``--out``) is there and nothing
before it has to be made again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import dropwhile
from json import dumps
from pathlib import Path

from mar.core.errors import Stopped, UserError
from mar.core.files import environment, held, write_atomic
from mar.core.records import Record, read
from mar.core.signals import forward_signals
from mar.experiments.grid import GridFile

PROGRAM = (sys.executable, "-m", "mar")


def prepare(grid: GridFile, out: Path, say: Callable[[str], None] = print) -> None:
    """Run, one after the other, the commands that are pending; another process that does so is waited for.

    Args:
        out: the grid's folder.
        say: is told each command before it runs.

    Raises:
        UserError: a command failed; the grid's command, given again, goes on with it.
        Stopped: by a signal, which was passed on.
    """
    if not grid.prepare:
        return
    for command in grid.prepare:  # all are read before any is run
        _words(grid, command)
    with held(out / "prepared", wait=True):
        todo = pending(grid, out)
        for command in todo:  # else one that is still to be made again might count as done after a kill
            _file(grid, out, command).unlink(missing_ok=True)
        for command in todo:
            say(f"mar {command}")
            started = time.monotonic()
            _run(_words(grid, command))
            made_by = {"revision": environment()["revision"]}
            record = Record({"command": command}, time.monotonic() - started, made_by, None)
            write_atomic(_file(grid, out, command), dumps(asdict(record)))


def pending(grid: GridFile, out: Path) -> list[str]:
    """The commands that are still to be run: the first of them and all after it, which may read what it makes."""

    def is_done(command: str) -> bool:
        return _record(grid, out, command) is not None and all(path.exists() for path in _made(_words(grid, command)))

    return list(dropwhile(is_done, grid.prepare))


def seconds(grid: GridFile, out: Path) -> float:
    """Wall-clock time of those that have ended well, each in its last run."""
    records = (_record(grid, out, command) for command in grid.prepare)
    return sum(record.seconds for record in records if record is not None)


def _words(grid: GridFile, command: str) -> list[str]:
    """A command's arguments, in a shell's quoting.

    Raises:
        UserError: a quote is not closed, or a given value would fall apart.
    """
    for key, value in grid.given.items():
        if value in command and len(value.split()) > 1:
            raise UserError(
                f"given.{key}={value!r} has a blank, at which prepare's commands are split: use a link to it"
            )
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UserError(f"prepare: {command!r}: {error}") from None


def _made(words: list[str]) -> Iterator[Path]:
    """What a command writes."""
    with suppress(ValueError, IndexError):
        yield Path(words[words.index("--out") + 1])


def _file(grid: GridFile, out: Path, command: str) -> Path:
    return out / "prepared" / f"{grid.prepare.index(command)}.json"


def _record(grid: GridFile, out: Path, command: str) -> Record | None:
    return read(_file(grid, out, command), {"command": command})


def _run(words: list[str]) -> None:
    children: list[subprocess.Popen[bytes]] = []
    with forward_signals(children) as stopped:
        child = subprocess.Popen([*PROGRAM, *words], stdin=subprocess.DEVNULL, start_new_session=True)
        children.append(child)
        if stopped:
            child.terminate()
        code = child.wait()
    if stopped:
        raise Stopped(stopped[0])
    if code:
        said = f"mar {shlex.join(words)}"
        raise UserError(f"prepare: `{said}` ended with code {code} (what it said is above); the same command goes on")

"""Names of files and folders for texts of any length.

Folders that commands write: each is of one kind, told by a file of its own, and has one writer at a time.

A run is a folder: recipe, environment, metrics, checkpoints, samples, scores.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mar.core.errors import UserError


def short(text: str, longest: int) -> str:
    """``text``, or as much of it as ``longest`` bytes take with its hash at the end: file systems allow 255."""
    content = text.encode()
    if len(content) <= longest:
        return text
    return f"{content[: longest - 17].decode(errors='ignore')}~{sha256(content).hexdigest()[:16]}"


RUN, TOKENIZER, CACHE, STORE, GRID = "recipe.yaml", "tokenizer.json", "settings.json", "store.json", "grid.yaml"


_KINDS = {
    RUN: "a run",
    TOKENIZER: "a tokenizer's run",
    CACHE: "a cache of latents",
    STORE: "generated images",
    GRID: "an ablation",
}


_LOOK_AGAIN = 1.0  # seconds


def check_kind(path: Path, kind: str) -> None:
    """Nothing is in the way of a folder of ``kind`` (the name of the file that marks it). Writes nothing.

    Raises:
        UserError: it holds another kind, or is no folder.
    """
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file, and {path} would be a folder: choose another --out")
    for marker, what in _KINDS.items():
        if marker != kind and (path / marker).is_file():
            raise UserError(f"{path} holds {what} ({marker}), not {_KINDS[kind]}: choose another --out")


@contextmanager
def locked(path: Path, kind: str) -> Iterator[None]:
    """The folder, made if need be, for this writer alone.

    Raises:
        UserError: as ``check_kind``, before anything is written; or another process holds it; or as ``held``.
    """
    check_kind(path, kind)
    with held(path, wait=False) as mine:
        if not mine:
            raise UserError(f"another run is writing to {path}: wait for it, or choose another --out")
        yield


@contextmanager
def held(folder: Path, wait: bool) -> Iterator[bool]:
    """Yields whether this process alone works in ``folder``; with ``wait``, once the others have left.

    Raises:
        UserError: its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # NFS says either
                if wait:
                    time.sleep(_LOOK_AGAIN)
                    continue
                yield False
                return
            except OSError as error:
                raise UserError(
                    f"no file locks in {folder} ({error.strerror}): choose a file system with flock"
                ) from None
            yield True
            return


def write(path: Path, text: str) -> None:
    """Write a text file aside and rename it; into what is no regular file (a device, a pipe), as it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        path.write_text(text)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")  # two commands may share a folder
    aside.write_text(text)
    os.replace(aside, path)


def environment() -> dict[str, Any]:
    """What the run ran on: versions, hardware, revision, command."""
    packages = ("torch", "timm", "accelerate", "diffusers", "torch-fidelity", "mar-orderings")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {os.cpu_count()} cores"
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "device": device,
        "threads": torch.get_num_threads(),
        "revision": _revision(),
        "command": shlex.join(["mar", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu() -> str:
    """The processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _revision() -> str:
    """Of the repository; ``-dirty`` where tracked files had been changed."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _version(package: str) -> str:
    """Of an installed package; ours may run from its folder alone."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

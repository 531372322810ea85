"""Folders that commands write: each is of one kind, told by a file of its own, and has one writer at a time."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mar.errors import UserError

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

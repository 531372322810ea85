"""Folders that commands write: each is of one kind, told by a file of its own, and has one writer at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mar.errors import UserError

RUN, TOKENIZER, CACHE, STORE = "recipe.yaml", "tokenizer.json", "settings.json", "store.json"
_KINDS = {
    RUN: "a run",
    TOKENIZER: "a tokenizer's run",
    CACHE: "a cache of latents",
    STORE: "generated images",
    "grid.yaml": "an ablation",
}


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
        UserError: as ``check_kind``, before anything is written; or another process holds it.
    """
    check_kind(path, kind)
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another run is writing to {path}: wait for it, or choose another --out") from None
        yield

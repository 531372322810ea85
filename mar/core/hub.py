"""The Hugging Face hub: a repository's files as a local folder, and its client's errors in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mar.core.errors import MarError, UserError

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?")


def local_folder(name: str | Path) -> Path:
    """Return a path as it is, and the downloaded repository of a hub name (``OWNER/NAME``, ``OWNER/NAME@REVISION``).

    A path whose first folder exists here is never looked for on the hub. Raises UserError: the hub did not give it.
    """
    path, found = Path(name), _NAME.fullmatch(Path(name).as_posix())
    if found is None or path.exists() or Path(path.parts[0]).exists():
        return path
    return snapshot(found["repo"], revision=found["revision"])


def snapshot(repository: str, **options: Any) -> Path:
    """Download a repository, or find it in the client's cache. Raises UserError: the hub did not give it."""
    with answered(f"{repository} is no folder, and the hub did not give it", "or give its folder"):
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repository, **options))


@contextmanager
def answered(what: str, hint: str) -> Iterator[None]:
    """Turn any exception of the hub's client into an error of one line."""
    try:
        yield
    except MarError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:160]
        raise UserError(f"{what} ({type(error).__name__}: {why}): check the name and the connection, {hint}") from None

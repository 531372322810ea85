"""Files of data sets: one walk over a folder for every kind, the identity of their content, and published files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mar.core.errors import UserError
from mar.core.files import cache_folder, checksum, digest, held, write_atomic
from mar.core.log import aside

_GZIP = b"\x1f\x8b"
_CLUTTER = ("__macosx", "thumbs.db", "desktop.ini")
_SETTLED_NS = 2_000_000_000  # a younger file may change again within the resolution of its time stamp
_LARGE = 2**31  # bytes
_SAID: set[str] = set()


def folder_at(path: str, holds: str, home: str = "") -> Path:
    """Return the folder ``data.path``, which should hold ``holds`` from ``home``. UserError: it is missing."""
    should = f"it should name a folder of {holds}{'; ' * bool(home)}{home}"
    if not path:
        raise UserError(f"data.path is not set: {should}")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path={path} is not a folder: {should}")
    return root


@dataclass(frozen=True)
class Listing:
    """The files of a folder that a data set reads, and the others by the reason for leaving them out.

    Attributes:
        files, folders: relative to ``root``, with forward slashes, sorted.
    """

    root: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    ignored: dict[str, list[str]] = field(default_factory=dict)

    def ignore(self, reason: str, names: Sequence[str]) -> None:
        if names:
            self.ignored.setdefault(reason, []).extend(names)

    def say(self, found: str) -> None:
        """Print ``found`` and what is left out on standard error, once for each process that started a command."""
        left = ", ".join(f"{len(names):,} {reason}" for reason, names in self.ignored.items() if reason != HIDDEN)
        rest = f"; left out: {left} (mar data check lists them)" if left else ""
        line = printable(f"{self.root}: {found}{rest}")
        if line not in _SAID:
            _SAID.add(line)
            aside.info(line)


HIDDEN, DANGLING, LOOPS = "hidden", "links without a target", "links to folders inside or above the folder"
OTHER, DEEPER = "files of other kinds", "folders (their files are not read)"


def printable(text: str) -> str:
    """Return a text without the surrogates of file names that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def walk(root: Path, suffixes: tuple[str, ...], deep: bool = True) -> Listing:
    """List the files below ``root`` that end in ``suffixes``, upper or lower case; ``deep``: in sub-folders, too.

    Names that begin with a dot and the clutter of other systems are hidden. Links are followed, except those to a
    folder inside or above ``root`` or on the way to the link, so that every file counts once.

    Raises:
        UserError: a folder cannot be read.
    """
    files, folders, listing = [], [], Listing(root, (), ())
    # place, real folders on the way to it, name and a slash
    waiting: list[tuple[str, tuple[str, ...], str]] = [(str(root), (os.path.realpath(root),), "")]
    while waiting:
        place, real, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{printable(place)} cannot be read: {error.strerror}") from None
        for entry in entries:
            name, linked = prefix + entry.name, entry.is_symlink()
            if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
                listing.ignore(HIDDEN, [name])
            elif os.path.isdir(entry.path) if linked else entry.is_dir():
                target = os.path.realpath(entry.path) if linked else os.path.join(real[-1], entry.name)
                if not deep:
                    listing.ignore(DEEPER, [name])
                elif linked and _leads_back(target, real):
                    listing.ignore(LOOPS, [name])
                else:
                    folders.append(name)
                    waiting.append((entry.path, (*real, target), f"{name}/"))
            elif not entry.name.lower().endswith(suffixes):
                listing.ignore(OTHER, [name])
            elif os.path.isfile(entry.path) if linked else entry.is_file():
                files.append(name)
            else:
                listing.ignore(DANGLING, [name])
    ignored = {reason: sorted(names) for reason, names in listing.ignored.items()}
    return Listing(root, tuple(sorted(files)), tuple(sorted(folders)), ignored)


def _leads_back(target: str, real: tuple[str, ...]) -> bool:
    """Return True for a folder inside the first of the ``real`` folders on the way, or at or above one of them."""
    return f"{target}/".startswith(f"{real[0]}/") or any(f"{above}/".startswith(f"{target}/") for above in real)


def contents(root: Path, files: Sequence[str]) -> list[str]:
    """Return the SHA-256 of each file, "unreadable" for one that cannot be read.

    A file is read once: its hash is kept in the user's cache by path, size, time of change and inode.
    """
    store = cache_folder() / "content" / f"{digest(os.fsencode(root.resolve()), digits=16)}.json"
    states = {name: _state(root / name) for name in files}
    known: dict[str, list[Any]] = {}
    with suppress(OSError, UserError), held(store.parent, wait=True):  # one of several processes reads the files
        known = _kept(store)
        if new := {name: state for name, state in states.items() if known.get(name, [])[:3] != state}:
            known = {name: known[name] for name in files if name not in new} | _hashed(root, new)
            settled = time.time_ns() - _SETTLED_NS
            if keep := {name: kept for name, kept in known.items() if kept[1] < settled}:
                write_atomic(store, json.dumps(keep))
    if not known:  # no place to keep hashes
        known = _hashed(root, states)
    return [known[name][3] for name in files]


def _state(file: Path) -> list[int]:
    try:
        found = file.stat()
        return [found.st_size, found.st_mtime_ns, found.st_ino]
    except OSError:
        return [0, 0, 0]


def _kept(store: Path) -> dict[str, list[Any]]:
    """Return what the cache knows; a damaged file is made again."""
    try:
        known = json.loads(store.read_text())
        return known if all(len(kept) == 4 for kept in known.values()) else {}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _hashed(root: Path, states: dict[str, list[int]]) -> dict[str, list[Any]]:
    def hashed(name: str) -> str:
        try:
            return checksum(root / name)
        except OSError:
            return "unreadable"

    if (size := sum(state[0] for state in states.values())) > _LARGE:
        aside.info(f"{root}: reading {len(states):,} files once to identify them, {size / 1e9:.3g} GB")
    with ThreadPoolExecutor() as pool:
        return {name: [*states[name], found] for name, found in zip(states, pool.map(hashed, states), strict=True)}


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published data set."""

    names: tuple[str, ...]  # accepted file names, the published one first; each also with ``.gz``
    expected: str  # its content, in words
    home: str  # its source
    md5: str = ""  # of the unpacked file; "" if none was published

    def load(
        self, path: str, nested: tuple[str, ...], parse: Callable[[bytes], torch.Tensor], notes: dict[str, str]
    ) -> tuple[Path, torch.Tensor]:
        """Return the file in the folder ``path`` and its values; add a note if its MD5 is not the published one.

        Args:
            parse: raises ValueError with the reason if the content is wrong.

        Raises:
            UserError: the file is missing, cannot be read, or is wrong.
        """
        file = self._find(path, nested)
        try:
            raw = file.read_bytes()
            raw = gzip.decompress(raw) if raw.startswith(_GZIP) else raw  # the content tells if it is packed
            values = parse(raw)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.damaged(file, f"the gzip file is truncated or damaged ({error})") from None
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            raise self.damaged(file, str(error)) from None
        md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest() if self.md5 else ""
        if md5 != self.md5:
            notes[self.names[0]] = f"md5 {md5} is not the published {self.md5}: figures may not compare with papers"
        return file, values

    def damaged(self, file: Path, why: str) -> UserError:
        """Return the error for a file with wrong content."""
        return UserError(f"{file}: {why}; expected {self.expected}; get it again from {self.home}")

    def _find(self, path: str, nested: tuple[str, ...]) -> Path:
        """Return the file in the folder ``path`` or one of its ``nested`` folders. UserError: it is missing."""
        want = f"{self.names[0]}(.gz)"
        root = folder_at(path, want, f"get it from {self.home}")
        places = (root / folder / name for folder in (".", *nested) for name in self.names)
        for place in places:
            for file in (place, place.with_name(f"{place.name}.gz")):
                if file.is_file():
                    return file
        looked = ", ".join((".", *nested))
        raise UserError(f"{want} is not in {root} (looked in {looked}): {self.expected}; get it from {self.home}")

"""Files and folders: atomic writes, hashes, locks, the kinds of folders that commands write, and what a run ran on.

Each folder is of one kind, marked by a file, and has one writer at a time.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mar.core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RUN, TOKENIZER, CACHE, STORE, GRID = "recipe.yaml", "tokenizer.json", "settings.json", "store.json", "grid.yaml"
_KINDS = {
    RUN: "a run",
    TOKENIZER: "a tokenizer's run",
    CACHE: "a cache of latents",
    STORE: "generated images",
    GRID: "an ablation",
}
_POLL_SECONDS = 1.0
_LONGEST_NAME = 200  # bytes


def write_atomic(path: Path, content: str | Callable[[Path], Any], durable: bool = False) -> None:
    """Write into a temporary folder beside ``path``, then rename; write directly to devices and pipes.

    What ``content`` leaves beside its own file (safetensors has temporary files) goes with the temporary folder.

    Args:
        content: text, or a function that writes the path it is given.
        durable: flush the file to the disk before renaming it.

    Raises UserError: ``path`` is a folder, and ``content`` a file; a folder is replaced by a folder alone.
    """
    if path.is_dir() and isinstance(content, str):
        check_file(path)
    save = (lambda target: target.write_text(content)) if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (path.is_file() or path.is_dir()):
        save(path)
        return
    host = digest(platform.node(), digits=6)  # two commands, also of two machines, may share a folder
    aside = path.with_name(f".{path.name}.{host}-{os.getpid()}.partial")
    for left in path.parent.glob(f".{glob.escape(path.name)}.{host}-*.partial"):
        if left == aside or not _alive(int(left.name.split("-")[-1].removesuffix(".partial"))):
            remove(left)
    try:
        aside.mkdir()
        save(aside / path.name)
        if durable:
            flush(aside / path.name)
        if path.is_dir():
            if not (aside / path.name).is_dir():
                check_file(path)
            remove(path)
        os.replace(aside / path.name, path)
    finally:
        remove(aside)


def check_file(path: Path) -> None:
    """Check that a file may be written at ``path``. Raises UserError: it is a folder, or as ``check_writable``."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the file to write")
    check_writable(path)


def _alive(process: int) -> bool:
    """True if there is a process of this number on this machine, or if the system cannot tell."""
    if os.name == "nt":  # there os.kill with 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def flush(*paths: Path) -> None:
    """Flush files and folders to the disk."""
    for path in paths:
        if os.name == "nt" and path.is_dir():  # Windows flushes files alone, opened for writing
            continue
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def digest(*parts: str | bytes | memoryview, digits: int = 64) -> str:
    """Return hexadecimal digits of the SHA-256 of the concatenated parts."""
    total = sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
    return total.hexdigest()[:digits]


def settings_digest(settings: Any, digits: int) -> str:
    """Return hexadecimal digits that identify settings (plain values), whatever the order of their keys."""
    return digest(json.dumps(settings, sort_keys=True), digits=digits)


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def checksums(files: Iterable[Path]) -> dict[str, str]:
    """Return the checksum of each file by its name."""
    return {file.name: checksum(file) for file in files}


def short(text: str, longest: int) -> str:
    """Return ``text``, cut to ``longest`` bytes that end with its hash if it is longer: file systems allow 255."""
    content = text.encode()
    if len(content) <= longest:
        return text
    return f"{content[: longest - 17].decode(errors='ignore')}~{digest(content, digits=16)}"


def folder_name(text: str, safe: str = "+:=,()") -> str:
    """Return ``text`` as the name of one folder or file: separators, line ends and quotes become %XX."""
    name = quote(text, safe=safe)
    return short(name if name.strip(".") else name.replace(".", "%2E"), _LONGEST_NAME)


def check_name(name: str, option: str) -> None:
    """Check a name that becomes a folder's. Raises UserError: it is a path, too long, or has other characters."""
    if not re.fullmatch(r"[\w+:=,()~ -][\w.+:=,()~ -]*", name) or len(name.encode()) > _LONGEST_NAME:
        raise UserError(
            f"{option} {name[:40]!r} is no name of a folder: letters, digits, spaces and _ - . + : = , ( ) ~, at most "
            f"{_LONGEST_NAME} bytes, without a dot at its start"
        )


def check_writable(path: Path) -> None:
    """Try to write at ``path``, as a file without a name in the nearest folder that exists. Raises UserError."""
    try:
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
        if there.is_dir():
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(bytes(4096))
        elif there != path:
            raise NotADirectoryError(20, f"{there} is a file")
        elif not os.access(path, os.W_OK):
            raise PermissionError(13, "no permission")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another place") from None


def near(path: str, folder: Path, started: str = "") -> str:
    """Return ``path``, or where a relative path that is not here lies, as seen by the command that wrote ``folder``.

    Args:
        started: the folder in which that command ran, relative to ``folder``; "": one of its parents.
    """
    given, home = Path(path).expanduser(), folder.resolve()
    if not path or given.is_absolute() or given.exists():
        return path
    bases = (*([home / started] if started else []), *home.parents[:3])
    return next((os.path.normpath(base / given) for base in bases if (base / given).exists()), path)


def cache_folder() -> Path:
    """Return the user's folder of results that belong to no run: classifiers, features, hashes of files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mar"


def runs_folder() -> Path:
    """Return the folder of all runs, unless a command says --out: MAR_RUNS, or runs."""
    return Path(os.environ.get("MAR_RUNS") or "runs").expanduser()


def in_data_folder(path: str, kind: str) -> str:
    """Return a path of data; a relative one that is not here is looked for in MAR_DATA, "" as the folder ``kind``."""
    root = os.environ.get("MAR_DATA")
    if not root or not (path or kind) or (path and Path(path).expanduser().exists()):
        return path
    there = Path(root).expanduser() / (path or kind)
    return str(there) if there.exists() else path


def check_kind(path: Path, kind: str) -> None:
    """Check that ``path`` may hold a folder of ``kind`` (its marker file). UserError: it is a file or another kind."""
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file, and {path} would be a folder: choose another --out")
    for marker, what in _KINDS.items():
        if marker != kind and (path / marker).is_file():
            raise UserError(f"{path} holds {what} ({marker}), not {_KINDS[kind]}: choose another --out")


@contextmanager
def locked(path: Path, kind: str) -> Iterator[None]:
    """Create the folder if necessary and lock it. UserError: as ``check_kind``, or another process holds it."""
    check_kind(path, kind)
    with held(path, wait=False) as mine:
        if not mine:
            raise UserError(f"another run is writing to {path}: wait for it, or choose another --out")
        yield


@contextmanager
def held(folder: Path, wait: bool) -> Iterator[bool]:
    """Lock ``folder`` and yield True, or False if another process holds it and not ``wait``. UserError: no locks.

    The lock ends with its process; its file is deleted when the block ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    if fcntl is None:
        with _held_by_filelock(lock, wait) as mine:
            yield mine
        return
    while True:
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # NFS says either
                if not wait:
                    yield False
                    return
                time.sleep(_POLL_SECONDS)
                continue
            except OSError as error:
                raise UserError(
                    f"no file locks in {folder} ({error.strerror}): choose a file system with flock"
                ) from None
            if not (lock.exists() and os.path.samestat(lock.stat(), os.fstat(file.fileno()))):
                continue  # its holder deleted this one between the two lines
            try:
                yield True
            finally:
                lock.unlink(missing_ok=True)
            return


@contextmanager
def _held_by_filelock(lock: Path, wait: bool) -> Iterator[bool]:
    """``held`` where there is no flock."""
    from filelock import FileLock, Timeout

    own = FileLock(lock)
    try:
        own.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        own.release()


def environment() -> dict[str, Any]:
    """Return versions, hardware, revision and command of this process."""
    import torch

    from mar.core.devices import choose, described

    packages = ("torch", "timm", "accelerate", "diffusers", "torch-fidelity", "mar-orderings")
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    device = described(choose().partition(":")[0])
    return {
        "python": platform.python_version(),
        "packages": {name: next((d.version for d in distributions(name=name)), "not installed") for name in packages},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu[1] if cpu else platform.processor() or platform.machine(),
        "device": device,
        "threads": torch.get_num_threads(),
        "revision": _revision(),
        "command": shlex.join(["mar", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _revision() -> str:
    """Return the repository's revision, with ``-dirty`` if tracked files have changed."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.check_output(git, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

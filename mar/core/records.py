"""Answers kept in files: each question is computed once, resumed when interrupted, refused when its settings differ.

- ``record``: one JSON file for one question, with the seconds it took; a failure is an answer, too.
- ``find``: a file whose values hold a question's, for records that people read (RUN/scores).
- ``Partial``: the unfinished tensors of a long computation, saved every 30 s.
- ``refuse_other``: the error for a folder or file with other settings.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from mar.core.errors import Stopped, UserError
from mar.core.files import write_atomic

if TYPE_CHECKING:
    import torch


def plain(settings: Any) -> Any:
    """Return settings as JSON stores them: tuples become lists, keys become text."""
    return json.loads(json.dumps(settings))


def differences(there: Mapping[str, Any], here: Mapping[str, Any], may_differ: Collection[str] = ()) -> list[str]:
    """Return a line for each difference of nested settings: ``train.seed is 0 there, 1 here``.

    Args:
        may_differ: dotted keys that are not compared.
    """

    def compare(a: Any, b: Any, name: str) -> list[str]:
        if a == b or name in may_differ:
            return []
        if isinstance(a, dict) and isinstance(b, dict):
            keys = sorted(a.keys() | b.keys())
            return [line for key in keys for line in compare(a.get(key), b.get(key), f"{name}.{key}".lstrip("."))]
        return [f"{name} is {a!r} there, {b!r} here"]

    return compare(plain(there), plain(here), "")


def refuse_other(
    place: Path, what: str, there: Mapping[str, Any], here: Mapping[str, Any], may_differ: Collection[str] = (),
    remedy: str = "choose another --out, or delete it",
) -> None:  # fmt: skip
    """Raise UserError if a setting stored in ``place`` differs from the current one, naming it and both values.

    Args:
        what: the content of ``place``, e.g. "a cache of other settings".
        may_differ: dotted keys that are not compared.
    """
    if found := differences(there, here, may_differ):
        raise UserError(f"{place} holds {what} ({found[0]}): {remedy}")


@dataclass(frozen=True)
class Question:
    """What identifies an answer about a model of a grid."""

    metric: str  #: a name of ``mar.metrics.METRICS``, or "training"
    plan: str | None = None  #: None for a question about the model itself
    variant: str = ""  #: the name of a variant; empty where no variant changes the answer
    #: every setting that the answer depends on, in plain values; an answer to other content is computed anew. The value
    #: of ``weights`` becomes a hash of the scored weights, which differ when the model is trained anew
    content: dict[str, Any] = field(default_factory=dict, compare=False)
    file: str = field(default="", compare=False)  #: of the record, relative to the grid's folder
    alone: bool = field(default=False, compare=False)  #: measured when nothing else runs
    weights: str = field(default="", compare=False)  #: a checkpoint that a variant names; empty: the grid's choice


@dataclass(frozen=True)
class Record:
    """A question, the seconds it took, and its answer (plain values) or error."""

    question: dict[str, Any]
    seconds: float
    answer: dict[str, Any] | None
    error: str | None


def read(file: Path, question: Mapping[str, Any]) -> Record | None:
    """Return the record of ``question``; None if the file is missing, damaged or answers another question."""
    try:
        found = TypeAdapter(Record).validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if found.question == question else None


def record(file: Path, question: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> Record:
    """Return the record of ``question``, computed and written if necessary. A failure is recorded; a stop is not."""
    known = read(file, question)
    if known is not None:
        return known
    started, result, failure = time.monotonic(), None, None
    try:
        result = compute()
    except Stopped:
        raise
    except Exception as error:
        failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
    made = Record(question, time.monotonic() - started, result, failure)
    write_atomic(file, json.dumps(asdict(made)))
    return made


def find(files: Iterable[Path], question: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Return the first JSON file, with its content, that holds every value of ``question``; a damaged one does not."""
    for file in files:
        with suppress(OSError, ValueError, RecursionError):
            content = json.loads(file.read_bytes())
            if isinstance(content, dict) and question.items() <= content.items():
                return file, content
    return None


class Partial:
    """A folder, named by a fingerprint of its question, of unfinished results. A damaged file counts as missing."""

    def __init__(self, folder: Path, save_seconds: float = 30.0) -> None:
        self.folder, self.save_seconds = folder, save_seconds

    def part(self, name: str) -> Part:
        """Return the file for one part of the computation, e.g. one batch of images."""
        return Part(self.folder / f"{name}.safetensors", self.save_seconds)

    def finished(self, name: str) -> dict[str, Any] | None:
        """Return the finished result ``name`` (plain values), if there is one."""
        stored = self.part(name).read()
        return stored[1] if stored else None

    def finish(self, name: str, result: dict[str, Any]) -> None:
        """Store a finished result and delete its parts ``name-…``."""
        self.part(name).write({}, result)
        self.clear(name)

    def clear(self, name: str) -> None:
        """Delete the parts ``name-…``, and the folder if it is empty."""
        for path in (*self.folder.glob(f"{name}-*.safetensors"), *self.folder.glob(f".{name}-*.partial")):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def delete(self) -> None:
        """Delete the folder, and the one that it lies in if that is empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()


@dataclass
class Part:
    """One file of tensors with notes (plain values)."""

    path: Path
    save_seconds: float = 30.0
    due: float = field(init=False)  # when unfinished work is written next, by ``time.monotonic``

    def __post_init__(self) -> None:
        self.due = time.monotonic() + self.save_seconds

    def read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return tensors and notes; None if the file is missing, damaged or another one."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
                return tensors, json.loads(file.metadata()["notes"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def write(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        from safetensors.torch import save_file

        content, metadata = {k: v.cpu().contiguous() for k, v in tensors.items()}, {"notes": json.dumps(notes)}
        write_atomic(self.path, lambda file: save_file(content, file, metadata=metadata))
        self.due = time.monotonic() + self.save_seconds

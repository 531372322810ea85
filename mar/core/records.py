"""Records of one cell: questions and their answers, kept in files, so that nothing is computed twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter

from mar.core.errors import Stopped
from mar.core.files import short, write

_LONG = 200  # bytes


@dataclass(frozen=True)
class Record:
    """One question, the seconds that it took, and the answer (plain values) or the error."""

    question: dict[str, Any]
    seconds: float
    answer: dict[str, Any] | None
    error: str | None


def folder_name(text: str, safe: str = "+:=,()") -> str:
    """``text`` as the name of a folder."""
    return short(quote(text, safe=safe), _LONG)


def read(file: Path, question: dict[str, Any]) -> Record | None:
    """The answer to ``question``, or how it failed; None: it was not asked yet."""
    if not file.is_file():
        return None
    found = TypeAdapter(Record).validate_python(json.loads(file.read_text()))
    return found if found.question == question else None


def once(file: Path, question: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> Record:
    """Compute and record, unless it has been. What fails is recorded too; what is stopped is not."""
    known = read(file, question)
    if known is not None:
        return known
    started, answer, failure = time.monotonic(), None, None
    try:
        answer = compute()
    except Stopped:
        raise
    except Exception as error:
        failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
    record = Record(question, time.monotonic() - started, answer, failure)
    write(file, json.dumps(asdict(record)))
    return record

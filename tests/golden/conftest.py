"""The golden numbers of this revision, computed once for all test processes."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.golden import worker

Numbers = Callable[[str, str], tuple[Any, Any]]


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Numbers:
    """``golden(group, key)``: what was recorded, and what this revision computes."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "golden"
    shared.mkdir(exist_ok=True)

    def numbers(group: str, key: str) -> tuple[Any, Any]:
        with (shared / f"{group}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the other processes wait for the first
            file = shared / group / f"{group}.json"
            found = json.loads(file.read_text()) if file.is_file() else worker.start(group, shared / group)
        if isinstance(found[key], dict) and "error" in found[key]:
            pytest.fail(found[key]["error"])
        return recorded(group)[key], found[key]

    return numbers


def recorded(name: str) -> dict[str, Any]:
    return json.loads((worker.HERE / "recorded" / f"{name}.json").read_text())

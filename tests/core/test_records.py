"""A question is computed once, resumed, and refused where its settings differ."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from mar.core.errors import Stopped, UserError
from mar.core.files import write_atomic
from mar.core.records import Partial, differences, find, read, record, refuse_other


def test_a_failure_is_recorded_and_a_stop_is_not(tmp_path: Path) -> None:
    def fail() -> dict:
        raise ValueError("no\nsuch")

    def stop() -> dict:
        raise Stopped(15)

    made = record(tmp_path / "failed.json", {"seed": 1}, fail)
    assert (made.answer, made.error) == (None, "ValueError: no such")
    assert record(tmp_path / "failed.json", {"seed": 1}, dict).error == made.error
    with pytest.raises(Stopped):
        record(tmp_path / "stopped.json", {"seed": 1}, stop)
    assert read(tmp_path / "stopped.json", {"seed": 1}) is None


def test_differences_name_nested_keys_and_read_tuples_as_lists() -> None:
    there, here = {"a": {"b": [1, 2], "c": 1}, "d": 0}, {"a": {"b": (1, 2), "c": 2}, "d": 1}
    assert differences(there, here) == ["a.c is 1 there, 2 here", "d is 0 there, 1 here"]
    assert differences(there, here, {"a.c", "d"}) == []
    refuse_other(Path("x"), "a run", there, there)
    with pytest.raises(UserError, match=r"x holds a run \(d is 0 there, 1 here\)"):
        refuse_other(Path("x"), "a run", there, here, {"a.c"})


def test_parts_are_kept_when_due_and_a_damaged_one_is_missing(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "kept")
    part = partial.part("images-00000")
    assert 29.0 < part.due - time.monotonic() <= 30.0 and part.read() is None
    part.write({"x": torch.ones(2)}, {"done": 2})
    tensors, notes = part.read() or ({}, {})
    assert torch.equal(tensors["x"], torch.ones(2)) and notes == {"done": 2}
    partial.finish("images", {"nats": 1.5})
    assert partial.finished("images") == {"nats": 1.5} and part.read() is None
    file = tmp_path / "kept" / "images.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    assert partial.finished("images") is None


def test_a_record_is_found_by_the_values_of_its_question(tmp_path: Path) -> None:
    contents = {"cut": "{", "list": "[1]", "other": '{"n": 2, "of": [1]}', "same": '{"n": 3, "of": [1]}'}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(content)
    files = [*sorted(tmp_path.glob("*.json")), tmp_path / "missing.json"]
    assert find(files, {"n": 3, "of": [1]}) == (tmp_path / "same.json", {"n": 3, "of": [1]})
    assert find(files, {"n": 4}) is None


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "file.txt"
    write_atomic(file, "old")

    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(file, fail)
    assert file.read_text() == "old" and list(file.parent.iterdir()) == [file]
    write_atomic(tmp_path / "folder", lambda aside: (aside.mkdir(), (aside / "new").write_text("new")))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]

"""Atomic writes leave nothing behind, also after another writer was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mar.core.files import write_atomic

KILLED = """
import os, signal, sys
from pathlib import Path
from mar.core.files import write_atomic
def save(path):
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomic(Path(sys.argv[1]), save)
"""


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    file = tmp_path / "a[1].json"
    subprocess.run([sys.executable, "-c", KILLED, str(file)], cwd=Path(__file__).parents[2], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a[1].json.") and left.name.endswith(".partial")
    machine = left.name.split(".")[-3]
    living = tmp_path / f".a[1].json.{machine}.{os.getppid()}.partial"  # another process is writing
    elsewhere = tmp_path / ".a[1].json.000000.1.partial"  # on another machine
    for path in (living, elsewhere):
        path.write_text("more")
    write_atomic(file, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([file, living, elsewhere]) and file.read_text() == "whole"


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_atomic(file, "old")
    with pytest.raises(ZeroDivisionError):
        write_atomic(file, lambda path: path.write_text(str(1 / 0)))
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]

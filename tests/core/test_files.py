"""Files that a killed process leaves are deleted by the next one; locks leave no file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mar.core.errors import UserError
from mar.core.files import RUN, held, locked, write_atomic


def killed_while_writing(path: Path) -> int:
    """Return the number of a process that was killed while it wrote ``path`` and a file of its own beside it."""
    code = "import os\nfrom pathlib import Path\nfrom mar.core.files import write_atomic\n"
    code += "def half(file):\n file.write_text('half')\n file.with_name('.tmp0').touch()\n os.kill(os.getpid(), 9)\n"
    code += f"write_atomic(Path({str(path)!r}), half)"
    process = subprocess.Popen([sys.executable, "-c", code])
    assert process.wait() == -signal.SIGKILL
    return process.pid


def test_the_next_write_deletes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    killed_while_writing(path)
    (left,) = tmp_path.iterdir()
    living = left.with_name(left.name.replace(left.name.split("-")[-1], f"{os.getppid()}.partial"))
    living.write_text("of a living process")
    write_atomic(path, "whole")
    assert path.read_text() == "whole" and set(tmp_path.iterdir()) == {path, living}


def test_a_file_replaces_no_folder(tmp_path: Path) -> None:
    (tmp_path / "results" / "kept").mkdir(parents=True)
    for content in ("text", lambda file: file.write_text("half")):
        with pytest.raises(UserError, match="results is a folder: name the file to write"):
            write_atomic(tmp_path / "results", content)
    assert [path.name for path in tmp_path.iterdir()] == ["results"] and (tmp_path / "results" / "kept").is_dir()
    write_atomic(tmp_path / "results", Path.mkdir)
    assert not any((tmp_path / "results").iterdir())


def test_a_lock_leaves_no_file_and_is_held_by_one(tmp_path: Path) -> None:
    taken, release = threading.Event(), threading.Event()

    def wait_for_it() -> None:
        with held(tmp_path, wait=True) as mine:
            assert mine
            taken.set()
            release.wait(10)

    with locked(tmp_path, RUN):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        with held(tmp_path, wait=False) as mine:
            assert not mine
    assert taken.wait(10)
    with held(tmp_path, wait=False) as mine:
        assert not mine
    release.set()
    waiting.join()
    assert not list(tmp_path.iterdir())

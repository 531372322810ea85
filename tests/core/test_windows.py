"""Without flock, as on Windows: everything imports, and folders are locked by filelock. Devices by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mar.core import files
from mar.core.errors import UserError
from mar.core.processes import Processes

HIDDEN = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import mar.cli.main, mar.cli.options, mar.config, mar.core.signals, mar.core.readers, mar.experiments.shipped
assert mar.core.files.fcntl is None
"""


def test_the_command_line_imports_without_modules_of_posix():
    subprocess.run([sys.executable, "-c", HIDDEN], check=True)


def test_a_folder_has_one_holder_without_flock(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with files.held(tmp_path, wait=False) as mine:
        with files.held(tmp_path, wait=False) as theirs:
            assert mine and not theirs
        with pytest.raises(UserError, match="another run is writing"), files.locked(tmp_path, files.RUN):
            pass
    with files.held(tmp_path, wait=True) as mine:
        assert mine


def test_the_cpu_is_taken_where_it_is_asked():
    assert Processes(precision="auto", device="cpu").device.type == "cpu"

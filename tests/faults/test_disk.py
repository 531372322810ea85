"""A full disk: the checkpoint before is as it was, one line says so, and the run ends before it loses more."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from mar.run import train
from mar.training.run_folder import RunFolder
from tests.faults.conftest import EVERY, Trained
from tests.faults.processes import Running, fill_disk


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("n_bytes", [5_000, 60_000], ids=["its first file", "its optimiser"])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_costs_no_other(run, world, n_bytes):
    hurt = fill_disk, ("mar.training.checkpoint:save", 1, n_bytes)
    running = Running(run.path / "logs", run.command(12), world, hurt)
    assert running.wait() == [2] * world, running.said
    said = [line for line in running.said.splitlines() if line.startswith("mar: ")]
    assert len(said) == 1 and f"iteration {2 * EVERY} could not be written" in said[0] and "00000005" in said[0]
    assert run.saved == EVERY and not list((run.path / "checkpoints").glob(".*"))
    assert set(Running(run.path / "logs", run.command(12), world).wait()) == {0}
    assert run.saved == 12


def test_a_log_that_cannot_be_written_costs_its_lines_alone(tmp_path, recipe, monkeypatch, capsys):
    def full(self, **values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunFolder, "log", full)
    train(recipe, tmp_path)
    assert capsys.readouterr().out.count("metrics.jsonl") == 1 and Trained(tmp_path).saved == 10


def test_a_line_that_was_cut_is_passed_over(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log(iteration=1)
    with folder.metrics.open("a") as file:
        file.write('{"iteration": 2, "loss')
    assert folder.history() == [{"iteration": 1}]
    folder.log(iteration=3)
    folder.rewind(1)
    assert folder.metrics.read_text() == '{"iteration": 1}\n'


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        run = Trained(disk / "run")
        running = Running(tmp_path / "logs", run.command(100, "train.keep=100"))
        assert running.wait() == [2] and "No space left" in running.said, running.said
        assert run.saved >= EVERY and run.saved >= run.logged - EVERY
        assert Running(tmp_path / "logs", run.command(run.saved + 1, "train.keep=1")).wait() in ([0], [2])
    finally:
        subprocess.run(["umount", str(disk)], check=True)

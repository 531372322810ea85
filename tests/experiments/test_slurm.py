"""A grid as jobs: nothing is submitted or trained twice, a stopped job saves and is put back, the result is the same.

Slurm's commands are stood in for by the scripts in ``fake_slurm``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mar.core.errors import UserError
from mar.core.files import held
from mar.experiments.engine import Engine
from mar.experiments.grid import GridFile, read
from mar.experiments.launch import WorkerSpec
from mar.experiments.slurm import Job, Jobs, Submitted, read_cluster
from tests.experiments.test_launch import GRID

pytest.importorskip("submitit")
FAKES = Path(__file__).parent / "fake_slurm"


@pytest.fixture
def grid(tmp_path: Path) -> GridFile:
    (tmp_path / "tiny.yaml").write_text(GRID)
    return read(str(tmp_path / "tiny.yaml"))


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def no_locks(*_) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(UserError, match="flock"), held(tmp_path, wait=True):
        pass


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs were submitted each time; a job lives until it was looked at three times."""
    counts: list[int] = []
    looked: dict[str, int] = {}

    def submit(self: Jobs, spec: WorkerSpec, count: int) -> list[Submitted]:
        counts.append(count)
        return [Submitted("local", f"{len(counts)}.{number}") for number in range(count)]

    def lives(self: Submitted, folder: Path) -> bool:
        looked[self.id] = looked.get(self.id, 0) + 1
        return looked[self.id] <= 3

    monkeypatch.setattr(Jobs, "submit", submit)
    monkeypatch.setattr(Submitted, "lives", lives)
    monkeypatch.setattr(Submitted, "trouble", lambda self, folder: None)
    return counts


def jobs_of(grid: GridFile, out: Path, *pairs: str, watch: Callable[[], None] = lambda: None) -> Jobs:
    return Jobs(Engine(grid, out), read_cluster(["cluster=local", *pairs]), watch, poll_seconds=0.0)


def test_there_is_a_job_for_each_unfinished_cell_and_no_more_than_asked_for(grid, submitted, tmp_path):
    jobs_of(grid, tmp_path / "a").run(WorkerSpec(tmp_path))
    jobs_of(grid, tmp_path / "b", "jobs=1").run(WorkerSpec(tmp_path))
    jobs_of(grid, tmp_path / "c", "jobs=9").run(WorkerSpec(tmp_path))
    assert submitted == [2, 1, 2]


def test_the_same_command_waits_for_the_jobs_that_live_and_submits_what_is_missing(grid, submitted, tmp_path):
    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs_of(grid, tmp_path, "jobs=1", watch=leave).run(WorkerSpec(tmp_path))
    again = jobs_of(grid, tmp_path, "jobs=1")
    again.run(WorkerSpec(tmp_path))
    assert submitted == [1] and [job.id for job in again.now] == ["1.0"]
    with pytest.raises(KeyboardInterrupt):
        jobs_of(grid, tmp_path, "jobs=1", watch=leave).run(WorkerSpec(tmp_path))  # the first has ended
    jobs_of(grid, tmp_path, "jobs=2").run(WorkerSpec(tmp_path))  # one lives, one more
    assert submitted == [1, 1, 1]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in the place of the worker; its argument is the folder of the grid."""

    def put(script: str) -> None:
        command = property(lambda spec: [sys.executable, "-S", "-c", script, str(spec.out)])
        monkeypatch.setattr(WorkerSpec, "command", command)

    return put


SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(0.1)
    open(sys.argv[1] + "/saved", "w")
    raise SystemExit(143)
signal.signal(signal.SIGTERM, save)
open(sys.argv[1] + "/ready", "w")
time.sleep(30)
"""


def soon(folder: Path, number: int) -> None:
    """A signal to this process, as soon as the worker is there."""

    def send() -> None:
        while not (folder / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()


def test_a_job_ends_with_the_code_of_its_worker(worker, tmp_path):
    worker("raise SystemExit(3)")
    assert Job(WorkerSpec(tmp_path))() == 3


def test_a_job_whose_time_is_up_saves_and_is_put_back(worker, tmp_path):
    worker(SAVES)
    job, put_back = Job(WorkerSpec(tmp_path)), []

    def requeue(*_) -> None:  # as submitit does
        put_back.append(job.checkpoint())
        raise SystemExit

    before = signal.signal(signal.SIGUSR2, requeue)
    soon(tmp_path, signal.SIGUSR2)
    try:
        with pytest.raises(SystemExit):
            job()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (tmp_path / "saved").exists() and put_back[0].function == Job(WorkerSpec(tmp_path))


def test_a_cancelled_job_saves(worker, tmp_path):
    worker(SAVES)
    soon(tmp_path, signal.SIGTERM)
    assert Job(WorkerSpec(tmp_path))() == 143 and (tmp_path / "saved").exists()


def answers(out: Path) -> dict[str, Any]:
    """Of all records, by their file."""
    return {str(file.relative_to(out)): json.loads(file.read_text())["answer"] for file in out.glob("cells/**/*.json")}


class Ablation:
    """A grid whose models are scored, as one process does it, and as a command in another folder."""

    def __init__(self, folder: Path, iterations: int) -> None:
        self.file, self.folder, self.out = folder / "scored.yaml", folder, folder / "out"
        changed = {"nll: null": "nll: {images: 12}", "train.iterations=4": f"train.iterations={iterations}"}
        text = GRID
        for old, new in changed.items():
            text = text.replace(old, new)
        self.file.write_text(text)

    def alone(self) -> dict[str, Any]:
        """What one process finds."""
        Engine(read(str(self.file)), self.folder / "alone").work()
        return answers(self.folder / "alone")

    def start(self, *slurm: str) -> subprocess.Popen[str]:
        options = [text for pair in slurm for text in ("--slurm", pair)]
        command = [sys.executable, "-m", "mar", "ablate", str(self.file), "--out", str(self.out), *options]
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended(process: subprocess.Popen[str], code: int) -> str:
    """What it said."""
    said, _ = process.communicate(timeout=500)
    assert process.returncode == code, said
    return said


@pytest.mark.slow
def test_two_commands_at_once_train_no_cell_twice_and_find_what_one_finds(tmp_path):
    ablation = Ablation(tmp_path, 20)
    jobs, here = ablation.start("cluster=local", "jobs=2"), ablation.start()
    said = [ended(jobs, 0), ended(here, 0), *(log.read_text() for log in ablation.out.glob("jobs/*_log.out"))]
    assert "".join(said).count(" process(es) on ") == 2  # trainings begun
    assert answers(ablation.out) == ablation.alone()


@pytest.mark.slow
def test_jobs_of_slurm_outlive_ctrl_c_are_put_back_when_their_time_is_up_and_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "slurm"))
    monkeypatch.setenv("PATH", f"{FAKES}{os.pathsep}{os.environ['PATH']}")
    ablation = Ablation(tmp_path, 60)
    first = ablation.start("partition=here", "jobs=2")
    while len(list(ablation.out.glob("runs/*/metrics.jsonl"))) < 2 and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    said = ended(first, 130)
    assert "scancel 1000" in said and "mar status" in said
    jobs = subprocess.run(["pgrep", "-f", f"submitit.core._submit {ablation.out}"], capture_output=True, check=True)
    for process in jobs.stdout.split():
        os.kill(int(process), signal.SIGUSR2)
    ended(ablation.start("partition=here", "jobs=2"), 0)
    logs = [log.read_text() for log in ablation.out.glob("jobs/*_log.out")]
    assert len(logs) == 2 and all("Requeued job" in log and "resuming" in log for log in logs), logs
    assert [file.name for file in (tmp_path / "slurm").glob("*.script")] == ["1000.script"]  # one array, submitted once
    assert answers(ablation.out) == ablation.alone()

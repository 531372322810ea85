"""Where a grid runs: worker processes, multi-process training of a cell, and the commands that prepare its inputs.

    python -m mar.experiments.launch OUT    one worker: it takes the next cell that no other process holds

    OUT/logs/worker-N.txt        output of the workers
    OUT/prepared/NUMBER.json     one of the grid's ``prepare`` commands that has ended well
    RUN/launch.yaml, launch.txt  the resolved recipe of a multi-process training, and its output

A ``prepare`` command makes inputs of the recipes: autoencoders, caches of latents. It is a ``mar`` command and resumes
where it was stopped. A finished command is not run again while its ``--out`` exists and every earlier command is
finished.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from omegaconf import OmegaConf

from mar.config import Recipe
from mar.core.errors import Stopped, UserError
from mar.core.files import environment, fcntl, held, write_atomic
from mar.core.log import logger
from mar.core.records import Record, read
from mar.core.signals import cores, end_with, forward_signals

if TYPE_CHECKING:
    from mar.experiments.grid import GridFile

PROGRAM = (sys.executable, "-m", "mar")
RECIPE, LOG = "launch.yaml", "launch.txt"
_POLL = 2.0  # seconds
_LINES = 6  # last lines of the log in an error
_LAUNCHERS = re.compile(r"^[EW]\d{4} .*torch/distributed/", re.MULTILINE)  # where torchrun's own output begins
_FIRST_CODE = re.compile(r"^Root Cause.*?exitcode\s*: (-?\d+)", re.MULTILINE | re.DOTALL)


def start(
    command: Sequence[str], own: dict[str, str], log: IO[bytes] | None = None, keep: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, which Ctrl-C does not reach directly.

    Args:
        own: environment variables beside this process's.
        log: takes its output; None: it is this process's.
        keep: file descriptors that it inherits.
    """
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **own}, pass_fds=keep,
        start_new_session=True,
    )  # fmt: skip


def _finish(command: Sequence[str], own: dict[str, str], log: IO[bytes] | None = None, keep: Sequence[int] = ()) -> int:
    """Run a command as ``start`` does; return its exit code. Raise Stopped at a signal, which was passed on."""
    children: list[subprocess.Popen[bytes]] = []
    with forward_signals(children) as stopped:
        children.append(start(command, own, log, keep))
        if stopped:
            children[0].terminate()
        code = children[0].wait()
    if stopped:
        raise Stopped(stopped[0])
    return code


@dataclass(frozen=True)
class WorkerSpec:
    """A worker in the grid's folder ``out``. ``speeds``: it answers only what is measured alone."""

    out: Path
    processes: int = 1  # that a cell is trained in
    speeds: bool = False

    @property
    def command(self) -> list[str]:
        """The command of a worker."""
        options = ["--processes", str(self.processes), *(["--speeds"] if self.speeds else [])]
        return [sys.executable, "-m", "mar.experiments.launch", str(self.out), *options]


def run_workers(spec: WorkerSpec, count: int, watch: Callable[[], object]) -> list[int]:
    """Run ``count`` workers until no cell is left, and return their exit codes. ``watch`` is called every two seconds.

    Each has its share of the cores, GPUs of its own where there are several, and a log in OUT/logs. A signal stops
    all workers, which save their training, and raises Stopped.
    """
    logs = spec.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    workers: list[subprocess.Popen[bytes]] = []
    with forward_signals(workers) as stopped:
        for number in range(count):
            if not stopped:
                with (logs / f"worker-{number}.txt").open("ab") as log:
                    workers.append(start(spec.command, _worker_environment(number, count, spec.processes), log))
        while any(worker.poll() is None for worker in workers):
            watch()
            time.sleep(_POLL if not stopped else 0.1)
    if stopped:
        raise Stopped(stopped[0])
    return [worker.returncode for worker in workers]


def shared_cores(count: int) -> dict[str, str]:
    """Return the environment of one of ``count`` processes that share the cores."""
    return {"OMP_NUM_THREADS": str(max(1, cores() // count)), "TERM": "dumb"}


def _worker_environment(number: int, count: int, gpus_each: int) -> dict[str, str]:
    import torch

    own = shared_cores(count)
    if (gpus := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        mine = (visible[(number * gpus_each + gpu) % len(visible)] for gpu in range(gpus_each))
        own["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return own


def work(spec: WorkerSpec) -> int:
    """Be one worker; return its exit code. It ends with its parent."""
    import torch

    from mar.experiments.engine import Engine
    from mar.experiments.grid import stored

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores())))
    end_with(os.getppid())
    try:
        engine = Engine(stored(spec.out), spec.out, trainer=trainer(spec.processes))
        if spec.speeds:
            engine.measure_alone()
        else:
            engine.work()
    except Stopped as stopped:
        return 128 + stopped.signal
    except UserError as error:
        logger.error(f"mar: {error}")
        return 2
    return 0


Command = Callable[[int, Path], list[str]]


def torchrun(processes: int, path: Path) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "-m", "mar", "train", str(path / RECIPE), "--out", str(path)]


class TrainingFailed(Exception):
    """The processes of a training ended with an error; the message has their last lines."""


def trainer(processes: int, command: Command | None = None) -> Callable[[Recipe, Path], None] | None:
    """Return the function that trains a cell in several processes of this machine; None: one takes no launcher.

    Each process has a GPU of its own where there are any. Raises UserError: fewer GPUs than processes; without GPUs,
    fewer cores, where at least 8 processes are allowed.
    """
    import torch

    if processes == 1:
        return None
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if processes > (gpus or max(8, cores())):
        there = f"{gpus} GPUs" if gpus else f"{cores()} cores"
        raise UserError(f"--processes {processes} is too many: this machine has {there}")
    return partial(train_launched, processes, command=command)


def train_launched(processes: int, recipe: Recipe, path: Path, command: Command | None = None) -> None:
    """Train ``recipe`` in the folder ``path``, or resume it, in processes that ``command`` starts (default: torchrun).

    Raises:
        Stopped: by a signal; the training is saved.
        TrainingFailed: with the last lines of the output.
    """
    write_atomic(path / RECIPE, OmegaConf.to_yaml(OmegaConf.create(recipe.as_dict())))
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", cores())) // processes)
    shutdown = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300")  # seconds to save in
    own = {"OMP_NUM_THREADS": str(threads), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": shutdown, "TERM": "dumb"}
    with (path / ".launch").open("w") as alone, (path / LOG).open("ab") as log:
        if fcntl is not None:
            fcntl.flock(alone, fcntl.LOCK_EX)  # held by a launcher that outlived its command, too
        begin = log.tell()
        if _finish((command or torchrun)(processes, path), own, log, (alone.fileno(),)):
            _raise_failure(path / LOG, begin)


def _raise_failure(file: Path, begin: int) -> None:
    """Raise the error of a training. torchrun always ends with 1: the exit code of its processes is in its report."""
    text = file.read_bytes()[begin:].decode(errors="replace")
    first = _FIRST_CODE.search(text)
    code = int(first[1]) if first else 0
    if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):  # another program stopped a process, and with it all
        raise Stopped(code - 128)
    lines = [line.strip() for line in _LAUNCHERS.split(text)[0].splitlines() if line.strip()]
    last = list(dict.fromkeys(lines))[-_LINES:]  # processes print the same lines
    raise TrainingFailed(f"{' | '.join(last) or 'no output'} (whole output: {file})")


def prepare(grid: GridFile, out: Path, say: Callable[[str], None] = print) -> None:
    """Run the pending ``prepare`` commands in order, each told to ``say``; wait for another process that does so.

    Raises:
        UserError: a command failed; the grid's command, given again, resumes it.
        Stopped: by a signal, which was passed on.
    """
    if not grid.prepare:
        return
    words = [_words(grid, command) for command in grid.prepare]  # checked before any is run
    with held(out / "prepared", wait=True):
        todo = range(len(words) - len(pending(grid, out)), len(words))
        for number in todo:  # after a kill, a command that has to run again must not count as finished
            _prepared(out, number).unlink(missing_ok=True)
        for number in todo:
            say(f"mar {grid.prepare[number]}")
            started = time.monotonic()
            if code := _finish([*PROGRAM, *words[number]], {}):
                said = f"mar {shlex.join(words[number])}"
                raise UserError(f"prepare: `{said}` ended with code {code} (see its output above); repeat it to resume")
            made_by = {"revision": environment()["revision"]}
            record = Record({"command": grid.prepare[number]}, time.monotonic() - started, made_by, None)
            write_atomic(_prepared(out, number), json.dumps(asdict(record)))


def pending(grid: GridFile, out: Path) -> list[str]:
    """Return the first unfinished command and all after it, which may read its output."""
    for number, (command, record) in enumerate(zip(grid.prepare, _records(grid, out), strict=True)):
        words = _words(grid, command)
        made = words[words.index("--out") + 1 :][:1] if "--out" in words else []
        if record is None or not all(Path(path).exists() for path in made):
            return list(grid.prepare[number:])
    return []


def preparation_seconds(grid: GridFile, out: Path) -> float:
    """Return the wall-clock time of the finished ``prepare`` commands, each in its last run."""
    return sum(record.seconds for record in _records(grid, out) if record is not None)


def _prepared(out: Path, number: int) -> Path:
    return out / "prepared" / f"{number}.json"


def _records(grid: GridFile, out: Path) -> list[Record | None]:
    return [read(_prepared(out, number), {"command": command}) for number, command in enumerate(grid.prepare)]


def _words(grid: GridFile, command: str) -> list[str]:
    """Split a command in a shell's quoting. Raise UserError: a quote is not closed, or a given value would be split."""
    for key, value in grid.given.items():
        if value in command and len(value.split()) > 1:
            raise UserError(
                f"given.{key}={value!r} has a blank, at which prepare's commands are split: use a link to it"
            )
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UserError(f"prepare: {command!r}: {error}") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--speeds", action="store_true")
    sys.exit(work(WorkerSpec(**vars(parser.parse_args()))))

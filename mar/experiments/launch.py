"""A cell's training in several processes: what ``torchrun --nproc-per-node N -m mar train`` does, for the engine.

RUN/launch.yaml    the resolved recipe, which the processes read
RUN/launch.txt     what they and the launcher printed
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf

from mar.config import Recipe
from mar.core.errors import Stopped, UserError
from mar.core.files import write_atomic
from mar.core.signals import cores, forward_signals

RECIPE, LOG = "launch.yaml", "launch.txt"
_LINES = 6  # of the log, that are told of a failure
_LAUNCHERS = re.compile(r"^[EW]\d{4} .*torch/distributed/", re.MULTILINE)  # where torchrun begins to speak
_FIRST_CODE = re.compile(r"^Root Cause.*?exitcode\s*: (-?\d+)", re.MULTILINE | re.DOTALL)


class TrainingFailed(Exception):
    """The processes of a training ended with an error; the message has the last lines that they printed."""


def trainer(processes: int) -> Callable[[Recipe, Path], None] | None:
    """What trains a cell in several processes of this machine, each with a GPU of its own where there are any. None:
    one process wants no launcher.

    Raises:
        UserError: fewer GPUs than processes.
    """
    if processes == 1:
        return None
    if torch.cuda.is_available() and (gpus := torch.cuda.device_count()) < processes:
        raise UserError(f"--processes {processes} wants as many GPUs, and {gpus} can be seen here")
    return partial(train_launched, processes)


def train_launched(processes: int, recipe: Recipe, path: Path) -> None:
    """Train ``recipe`` in the folder ``path``, or go on where it stands, in ``processes`` processes.

    Raises:
        Stopped: by a signal; what was trained is saved.
        TrainingFailed: with what was printed last.
    """
    write_atomic(path / RECIPE, OmegaConf.to_yaml(OmegaConf.create(recipe.as_dict())))
    children: list[subprocess.Popen[bytes]] = []
    with (path / ".launch").open("w") as alone, (path / LOG).open("ab") as log:
        fcntl.flock(alone, fcntl.LOCK_EX)  # a launcher that outlived its command holds it, too
        begin = log.tell()
        with forward_signals(children) as stopped:
            launcher = subprocess.Popen(
                _command(processes, path), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=_environment(processes), pass_fds=[alone.fileno()], start_new_session=True,
            )  # fmt: skip
            children.append(launcher)
            if stopped:
                launcher.terminate()
            code = launcher.wait()
    if stopped:
        raise Stopped(stopped[0])
    if code:
        _raise(path / LOG, begin)


def _command(processes: int, path: Path) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "-m", "mar", "train", str(path / RECIPE), "--out", str(path)]


def _environment(processes: int) -> dict[str, str]:
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", cores())) // processes)
    shutdown = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300")  # seconds to save in
    own = {"OMP_NUM_THREADS": str(threads), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": shutdown, "TERM": "dumb"}
    return {**os.environ, **own}


def _raise(file: Path, begin: int) -> None:
    """torchrun ends with 1 whatever happened: what its processes ended with is in its report."""
    with file.open("rb") as log:
        log.seek(begin)
        text = log.read().decode(errors="replace")
    first = _FIRST_CODE.search(text)
    code = int(first[1]) if first else 0
    if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):  # somebody else stopped a process, and with it all
        raise Stopped(code - 128)
    lines = [line.strip() for line in _LAUNCHERS.split(text)[0].splitlines() if line.strip()]
    last = list(dict.fromkeys(lines))[-_LINES:]  # processes repeat each other
    raise TrainingFailed(f"{' | '.join(last) or 'without a word'} (all of it: {file})")

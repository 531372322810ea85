"""``mar`` in one or several processes that a test can hurt, without paying the imports each time.

Processes are forked from a server that has imported everything. They find each other as under torchrun or srun.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["tests.faults.processes", "mar.core.torchvision", "mar.cli.main", "mar.run", "mar.run", "accelerate",
     "sklearn.datasets", "timm.models.vision_transformer", "torch.utils.tensorboard", "torch.distributed.fsdp",
     "torch.distributed.checkpoint", "mar.experiments.engine", "mar.metrics.features", "mar.metrics.probe",
     "mar.reports.page", "matplotlib.figure"]
)  # fmt: skip
Hurt = tuple[Callable[..., None], tuple[Any, ...]]  # done in every process before it starts


class Running:
    """``mar ARGUMENTS`` in ``world`` processes, whose output goes to files in ``logs``."""

    def __init__(self, logs: Path, arguments: list[str], world: int = 1, hurt: Hurt | None = None) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = [logs / f"{rank}.log" for rank in range(world)]
        port = _free_port()
        self.processes = [
            _SERVER.Process(target=_work, args=(rank, world, port, arguments, log, hurt))
            for rank, log in enumerate(self.logs)
        ]
        for process in self.processes:
            process.start()

    def wait(self, timeout: float = 120) -> list[int | None]:
        """Exit codes; a negative one is the signal that killed it."""
        for process in self.processes:
            process.join(timeout)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def send(self, number: int, *ranks: int) -> None:
        for rank in ranks or range(len(self.processes)):
            pid = self.processes[rank].pid
            if pid is not None and self.processes[rank].is_alive():
                os.kill(pid, number)

    def until(self, ready: Callable[[], bool], timeout: float = 60) -> None:
        """Wait for something to happen while they all run."""
        end = time.monotonic() + timeout
        while not ready():
            assert all(process.is_alive() for process in self.processes), self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.01)

    @property
    def said(self) -> str:
        return "\n".join(log.read_text() for log in self.logs if log.is_file())


def kill_itself(target: str, call: int) -> None:
    """SIGKILL in the ``call``-th call of ``module:name``, counted from 0, on its way in."""
    _patch(target, call, lambda: os.kill(os.getpid(), signal.SIGKILL))


def fill_disk(target: str, call: int, n_bytes: int) -> None:
    """From the ``call``-th call of ``module:name`` on, no file of this process grows beyond ``n_bytes``."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))

    _patch(target, call, limit)


def _patch(target: str, call: int, action: Callable[[], None]) -> None:
    module_name, name = target.split(":")
    module, calls = importlib.import_module(module_name), iter(range(10**9))
    original = getattr(module, name)

    @functools.wraps(original)
    def hurt(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            action()
        return original(*args, **kwargs)

    setattr(module, name, hurt)


def _work(rank: int, world: int, port: int, arguments: list[str], log: Path, hurt: Hurt | None) -> None:
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if world > 1:
        here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ.update({k: str(v) for k, v in here.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.argv = ["mar", *arguments]
    if hurt is not None:
        hurt[0](*hurt[1])
    from mar.cli.main import main

    main()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]

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
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["tests.faults.processes", "mar.core.torchvision", "mar.cli.main", "mar.run", "mar.run", "accelerate",
     "sklearn.datasets", "timm.models.vision_transformer", "torch.utils.tensorboard", "torch.distributed.fsdp",
     "torch.distributed.checkpoint", "mar.experiments.engine", "mar.metrics.features", "mar.metrics.probe",
     "mar.reports.page", "matplotlib.figure", "mar.metrics.generated", "mar.metrics.nll", "mar.metrics.searched",
     "mar.bench.run", "mar.verification.registry", "mar.compat.hub", "mar.compat.released", "diffusers.models",
     "orderings.draw", "torch_fidelity", "mar.experiments.launch", "mar.training.autoencoder", "mar.data.check"]
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


class Answer(NamedTuple):
    """How a command ended: code None after a limit; ``said`` is the line of a refusal, or the traceback of a bug."""

    code: int | None
    said: str
    seconds: float  # of the processor


def ask(arguments: list[str], folder: Path, own: dict[str, str], seconds: float, n_bytes: int = 2**32) -> Answer:
    """Run ``mar ARGUMENTS`` in ``folder`` and in a process of its own, with limits of processor time and memory.

    Code None: it reached ``seconds``, or it used no processor time for as long. Its children end with it.
    """
    ours, theirs = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_answer, args=(arguments, folder, own, seconds, n_bytes, theirs))
    process.start()
    theirs.close()
    assert process.pid is not None
    answer, used, idle = None, 0.0, 0.0
    while idle < seconds and not ours.poll(0.5):
        before, used = used, sum(map(processor_seconds, (process.pid, *descendants(process.pid))))
        idle = 0.0 if used != before else idle + 0.5
    spent = idle >= seconds
    with suppress(EOFError):
        answer = None if spent else ours.recv()
    for pid in (*descendants(process.pid), process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.join()
    spent = spent or process.exitcode == -signal.SIGKILL
    return answer or Answer(None if spent else -1, f"ended with {process.exitcode}", seconds)


def descendants(pid: int) -> Iterator[int]:
    """Yield the children of a process and theirs."""
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from descendants(int(child))
            yield int(child)


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far; 0: it has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _answer(
    arguments: list[str], folder: Path, own: dict[str, str], seconds: float, n_bytes: int, pipe: Any
) -> None:  # fmt: skip
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.chdir(folder)
    os.environ.update(own)
    limit = int(seconds + time.process_time()) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))
    sys.argv = ["mar", *arguments]
    from mar.cli.main import app, describe_error, refuse_renamed

    began = time.process_time()
    try:
        refuse_renamed(arguments)
        code, said = app(arguments, prog_name="mar", standalone_mode=False) or 0, ""
    except BaseException as error:
        said, code = describe_error(error)
        if code is None:
            code, said = -1, traceback.format_exc()
    pipe.send(Answer(code, said, time.process_time() - began))
    pipe.close()
    os._exit(0)


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

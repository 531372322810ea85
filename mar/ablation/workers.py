"""Several processes at one grid, on one machine: each takes the next cell that nobody holds.

python -m mar.ablation.workers OUT      # one of them; the others and the command need not run
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mar.ablation.grid import GridFile
from mar.errors import Stopped

_POLL = 2.0  # seconds


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_grid(out: Path) -> GridFile:
    """The grid of a folder."""
    return GridFile.model_validate(OmegaConf.to_container(OmegaConf.load(out / "grid.yaml")))


def run_workers(out: Path, count: int, retry_failed: bool, watch: Callable[[], None]) -> list[int]:
    """Run ``count`` workers until no cell is left, and return their exit codes. ``watch`` is called now and then.

    Each has its share of the cores, a GPU of its own where there are several, and a log in OUT/logs. A signal stops
    them all; what they train is saved.

    Raises:
        Stopped: by a signal.
    """
    (out / "logs").mkdir(parents=True, exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    with _stopping(processes) as stopped:
        for number in range(count):
            with (out / "logs" / f"worker-{number}.txt").open("ab") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "mar.ablation.workers", str(out), *(["retry"] if retry_failed else [])],
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(number, count),
                        start_new_session=True,  # Ctrl-C reaches them through this process alone, once
                    )
                )  # fmt: skip
        while any(process.poll() is None for process in processes):
            watch()
            time.sleep(_POLL if not stopped else 0.1)
    if stopped:
        raise Stopped(stopped[0])
    return [process.returncode for process in processes]


def _environment(number: int, count: int) -> dict[str, str]:
    import torch

    own = {"OMP_NUM_THREADS": str(max(1, cores() // count)), "TERM": "dumb"}
    if (gpus := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
    return {**os.environ, **own}


@contextmanager
def _stopping(processes: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Passes SIGINT and SIGTERM on to the workers, as SIGTERM; yields the signals received."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        for process in processes:
            if process.poll() is None:
                process.terminate()

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(out: Path, retry_failed: bool) -> int:
    """One worker. It leaves between two cells when the process that started it is gone."""
    import torch

    from mar.ablation.engine import Engine

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores())))
    parent = os.getppid()
    try:
        Engine(read_grid(out), out).work(retry_failed, go_on=lambda: os.getppid() == parent)
    except Stopped as stopped:
        return 128 + stopped.signal
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "retry" in sys.argv[2:]))

"""Several processes at one grid, on one machine: each takes the next cell that nobody holds.

python -m mar.experiments.workers OUT      # one of them; the others and the command need not run
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mar.core.errors import Stopped, UserError
from mar.core.signals import cores, forward_signals

if TYPE_CHECKING:
    from mar.experiments.grid import GridFile


_POLL = 2.0  # seconds


def read_grid(out: Path) -> GridFile:
    """The grid of a folder."""
    from omegaconf import OmegaConf

    from mar.experiments.grid import GridFile

    return GridFile.model_validate(OmegaConf.to_container(OmegaConf.load(out / "grid.yaml")))


@dataclass(frozen=True)
class Work:
    """What a worker is told.

    Attributes:
        out: the folder of the grid, with its ``grid.yaml``.
        processes: that a cell is trained in.
        speeds: measure the speeds, and nothing else.
    """

    out: Path
    processes: int = 1
    speeds: bool = False

    @property
    def command(self) -> list[str]:
        """What starts a worker."""
        told = ["--processes", str(self.processes), *(["--speeds"] if self.speeds else [])]
        return [sys.executable, "-m", "mar.experiments.workers", str(self.out), *told]


def run_workers(work: Work, count: int, watch: Callable[[], None]) -> list[int]:
    """Run ``count`` workers until no cell is left, and return their exit codes. ``watch`` is called now and then.

    Each has its share of the cores, GPUs of its own where there are several, and a log in OUT/logs. A signal stops
    them all; what they train is saved.

    Raises:
        Stopped: by a signal.
    """
    logs = work.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    workers: list[subprocess.Popen[bytes]] = []
    with forward_signals(workers) as stopped:
        for number in range(count):
            if not stopped:
                with (logs / f"worker-{number}.txt").open("ab") as log:
                    workers.append(start(work, _environment(number, count, work.processes), log))
        while any(worker.poll() is None for worker in workers):
            watch()
            time.sleep(_POLL if not stopped else 0.1)
    if stopped:
        raise Stopped(stopped[0])
    return [worker.returncode for worker in workers]


def start(work: Work, environment: dict[str, str], log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """A worker; it prints into ``log``, or where this process does. Ctrl-C reaches it through this process alone."""
    return subprocess.Popen(
        work.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def shared_cores(count: int) -> dict[str, str]:
    """The environment of one of ``count`` processes that share the cores."""
    return {"OMP_NUM_THREADS": str(max(1, cores() // count)), "TERM": "dumb"}


def _environment(number: int, count: int, gpus_each: int) -> dict[str, str]:
    import torch

    own = shared_cores(count)
    if (gpus := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        mine = (visible[(number * gpus_each + gpu) % len(visible)] for gpu in range(gpus_each))
        own["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return own


def main(work: Work) -> int:
    """One worker. It leaves between two cells when the process that started it is gone."""
    import torch

    from mar.experiments.engine import Engine
    from mar.experiments.launch import trainer

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores())))
    parent = os.getppid()
    try:
        engine = Engine(read_grid(work.out), work.out, trainer=trainer(work.processes))
        if work.speeds:
            engine.measure_speeds()
        else:
            engine.work(go_on=lambda: os.getppid() == parent)
    except Stopped as stopped:
        return 128 + stopped.signal
    except UserError as error:
        print(f"mar: {error}", file=sys.stderr)
        return 2
    return 0


def _told() -> Work:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--speeds", action="store_true")
    return Work(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main(_told()))

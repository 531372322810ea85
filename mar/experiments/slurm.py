"""A grid as jobs of a cluster, by submitit: each is a worker that takes the next free cell of the shared folder.

OUT/jobs/submitted.json       cluster and id of every job that was submitted and may still wait or run
OUT/jobs/ID_0_log.out         what a job printed
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mar.core.errors import Stopped, UserError
from mar.core.files import held, write_atomic
from mar.experiments.cluster import Cluster, Kind
from mar.experiments.engine import Ask, Engine
from mar.experiments.job import Job
from mar.experiments.state import states
from mar.experiments.workers import Work

_MOST = 32  # jobs, where nobody says how many
_POLL = {"slurm": 10.0, "local": 1.0, "debug": 0.0}  # seconds
_WELL = (0, 128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM)  # exit codes of a worker that was only stopped


@dataclass(frozen=True)
class Submitted:
    """A job that waits, runs or has ended. ``folder`` is submitit's."""

    cluster: Kind
    id: str

    def lives(self, folder: Path) -> bool:
        """Waits or runs."""
        if self.cluster == "slurm":
            from submitit import SlurmJob

            return not SlurmJob(folder, self.id).done()
        asked = subprocess.run(["ps", "-o", "command=", "-p", self.id], capture_output=True, text=True, check=False)
        return "submitit" in asked.stdout

    def trouble(self, folder: Path) -> str | None:
        """What went wrong with a job that has ended; None: nothing."""
        from submitit import LocalJob, SlurmJob

        job = (SlurmJob if self.cluster == "slurm" else LocalJob)(folder, self.id)
        said = f"job {self.id} ({job.paths.stdout})"
        if not job.paths.result_pickle.exists():
            return f"{said} ended without a word: cancelled, or its machine went away"
        try:
            code = job.result()
        except Exception as error:  # what the job raised
            return f"{said}: {str(error).strip().splitlines()[-2:]}"
        return None if code in _WELL else f"{said}: its worker ended with {code}"

    @property
    def cancelling(self) -> str:
        """The command that cancels it; what it trains is saved."""
        return f"scancel {self.id.partition('_')[0]}" if self.cluster == "slurm" else f"kill {self.id}"


class Jobs:
    """The jobs of a grid.

    Args:
        watch: called now and then while they are waited for.
    """

    def __init__(self, engine: Engine, cluster: Cluster, watch: Callable[[], None]) -> None:
        self.engine, self.cluster, self.watch = engine, cluster, watch
        self.folder = engine.out.resolve() / "jobs"
        self.now: list[Submitted] = []  # waited for

    def run(self, work: Work) -> list[str]:
        """Have all that is left done by jobs: the cells, then the speeds, and return what went wrong with some.

        Jobs of an earlier command that still wait or run are counted in, and waited for.

        Raises:
            UserError: the cluster takes no job. Stopped: a job of the cluster ``debug``, by a signal.
        """
        troubles = self._finish(work, min(self._left(), self.cluster.jobs or _MOST))
        if self.engine.grid.speed is not None and self._without_speed():
            troubles += self._finish(replace(work, speeds=True), 1)
        return troubles

    def _left(self) -> int:
        return sum(state.kind in ("training", "evaluation", "waiting") for state in states(self.engine))

    def _without_speed(self) -> bool:
        return any(self.engine.record(cell, Ask("speed")) is None for cell in self.engine.cells if cell.served)

    def _finish(self, work: Work, wanted: int) -> list[str]:
        """Let there be ``wanted`` jobs, and wait for all."""
        with held(self.folder, wait=True):  # nobody else submits meanwhile
            self.now = [job for job in self._recorded() if job.lives(self.folder)]
            if (more := wanted - len(self.now)) > 0:
                self.now += self._submit(work, more)
                write_atomic(self.folder / "submitted.json", json.dumps([asdict(job) for job in self.now]))
        while any(job.lives(self.folder) for job in self.now):
            self.watch()
            time.sleep(_POLL[self.cluster.kind])
        self.watch()
        return [trouble for job in self.now if (trouble := job.trouble(self.folder)) is not None]

    def _recorded(self) -> list[Submitted]:
        file = self.folder / "submitted.json"
        return [Submitted(**job) for job in json.loads(file.read_text())] if file.is_file() else []

    def _submit(self, work: Work, count: int) -> list[Submitted]:
        kind = self.cluster.kind
        count = 1 if kind == "debug" else count  # the first does all
        executor = self.cluster.executor(self.folder, f"mar-{self.engine.grid.name}")
        jobs: list[Any] = []
        try:
            with _deaf_to_ctrl_c(), executor.batch():  # Slurm: one array
                jobs += [executor.submit(Job(work, count if kind == "local" else 1)) for _ in range(count)]
        except RuntimeError as error:
            raise UserError(f"{kind} takes no job: {' '.join(str(error).split())}") from None
        if kind == "debug":
            if (code := jobs[0].result()) > 128:
                raise Stopped(code - 128)
            return []
        return [Submitted(kind, job.job_id) for job in jobs]


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started here outlive a Ctrl-C in this terminal: they inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

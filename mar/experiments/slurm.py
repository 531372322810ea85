"""A grid as jobs of a cluster, by submitit: an array of workers, each of which takes the next free cell of the folder.

    OUT/jobs/submitted.json       cluster and id of every submitted job that may still wait or run
    OUT/jobs/ID_0_log.out         output of a job

A job runs a worker in a child process and handles the scheduler's signals:

    SIGUSR2 (submitit asks for it before the time is up)    the worker saves, and the job returns to the queue
    SIGTERM, then SIGKILL (scancel; preemption)             the worker saves; Slurm then ends or requeues the job
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mar.core.errors import UserError, unknown
from mar.core.files import held, write_atomic
from mar.core.overrides import value_of
from mar.core.readers import reading
from mar.core.signals import forward_signals
from mar.experiments.engine import Engine
from mar.experiments.launch import WorkerSpec, shared_cores, start

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

Kind = Literal["slurm", "local"]
POLL_SECONDS = {"slurm": 10.0, "local": 1.0}
_COMMON = {"timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "name"}  # known to every executor of submitit
_SAME = {"time": "timeout_min", "job_name": "name"}
_ONE_NODE = {"nodes", "tasks_per_node", "ntasks_per_node"}
_NOT_TEXT = {"additional_parameters", "num_gpus", "use_srun", "stderr_to_stdout", "wckey"}  # useless on a command line
_LISTS = ("setup", "teardown", "srun_args")
_DEFAULTS = {"timeout_min": 24 * 60, "slurm_signal_delay_s": 300, "stderr_to_stdout": True}
_OFTEN = 1000  # times that a job returns to the queue
_MOST = 32  # jobs, without jobs=N
_JOB_POLL = 0.5  # seconds
_GRACE = 600.0  # seconds in which Slurm follows a SIGTERM up
_WELL = (0, 128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM)  # exit codes of a finished or stopped worker


@dataclass(frozen=True)
class Cluster:
    """The cluster that takes the jobs: at most ``jobs`` (None: one for each unfinished cell, within bounds).

    ``parameters`` are those of submitit's AutoExecutor. ``local`` jobs are processes of this machine.
    """

    kind: Kind
    jobs: int | None
    parameters: dict[str, Any]

    def executor(self, folder: Path, name: str) -> Any:
        """Return submitit's executor with its files in ``folder``. Raise UserError: no Slurm here, or a wrong value."""
        import submitit

        for text in (name, str(folder), *filter(lambda value: isinstance(value, str), self.parameters.values())):
            if re.search(r"""[\x00-\x1f\x7f'"`$\\]""", text):
                raise UserError(
                    f"{text!r} becomes part of a job's script: give it no quotes, $, backslash and line end"
                )
        often = {"slurm_max_num_timeout": _OFTEN, "local_max_num_timeout": _OFTEN}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.kind, **often)
            executor.update_parameters(**{"name": name, **_DEFAULTS, **self.parameters})
        except RuntimeError:
            raise UserError(
                "no Slurm here (srun is not on the PATH): submit from a login node, or try it out on this machine with "
                "--slurm cluster=local"
            ) from None
        except (AssertionError, ValueError, TypeError) as error:
            raise UserError(f"--slurm: {' '.join(str(error).split())}") from None
        return executor


def read_cluster(pairs: Sequence[str]) -> Cluster:
    """Read ``KEY=VALUE`` pairs: ``cluster``, ``jobs``, and submitit's names of sbatch's options. Raise UserError."""
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise UserError("--slurm wants submitit: pip install 'mar-orderings[slurm]'") from None
    known = (SlurmExecutor._valid_parameters() | _COMMON | {"jobs", "cluster"}) - _NOT_TEXT - _ONE_NODE
    found: dict[str, Any] = {"cluster": "slurm", "jobs": None}
    parameters = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        name, value = _SAME.get(key, key), value_of(text)
        if key in _ONE_NODE:
            raise UserError(f"--slurm {key}: a job is one worker on one node; jobs=N runs N of them, and --processes N "
                            "trains a cell on N GPUs of a node (gpus_per_node=N)")  # fmt: skip
        if key not in known:
            raise unknown("--slurm key", key, known)
        if not equals:
            raise UserError(f"--slurm is written KEY=VALUE, not {pair!r}")
        if key == "cluster" and text not in POLL_SECONDS:
            raise unknown("cluster", text, POLL_SECONDS)
        if name in ("jobs", "timeout_min") and (not isinstance(value, int) or value < 1):
            unit = "" if name == "jobs" else " (minutes)"
            raise UserError(f"--slurm {key}{unit} is a whole number of at least 1, not {value!r}")
        if key in found:
            found[key] = value
        elif key in _LISTS:
            parameters.setdefault(f"slurm_{key}", []).append(text)
        else:
            parameters[name if name in _COMMON else f"slurm_{name}"] = None if value is False else value
    return Cluster(found["cluster"], found["jobs"], parameters)


@dataclass
class Job:
    """The callable that submitit pickles and calls on the job's machine; ``sharing`` jobs share the cores it sees."""

    spec: WorkerSpec
    sharing: int = 1
    _worker: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self) -> int:
        """Run the worker until it finds no free cell; return its exit code."""
        children: list[subprocess.Popen[bytes]] = []
        with forward_signals(children) as stopped:
            self._worker = start(self.spec.command, shared_cores(self.sharing))
            children.append(self._worker)
            while self._worker.poll() is None:
                time.sleep(_JOB_POLL)
            if stopped and "SLURM_JOB_ID" in os.environ:
                time.sleep(_GRACE)  # an earlier end would tell Slurm that the job is done
        return self._worker.returncode

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit in its handler of SIGUSR2: stop the worker, which saves; return the job to the queue."""
        from submitit.helpers import DelayedSubmission

        if self._worker is not None:
            with suppress(ProcessLookupError, ChildProcessError):  # it has ended
                os.kill(self._worker.pid, signal.SIGTERM)
                os.waitpid(self._worker.pid, 0)  # not Popen.wait: the handler may have interrupted it
        return DelayedSubmission(replace(self))


@dataclass(frozen=True)
class Submitted:
    """A submitted job. ``folder`` is submitit's."""

    cluster: Kind
    id: str

    def lives(self, folder: Path) -> bool:
        """True while the job waits or runs."""
        if self.cluster == "slurm":
            from submitit import SlurmJob

            return not SlurmJob(folder, self.id).done()
        asked = subprocess.run(["ps", "-o", "command=", "-p", self.id], capture_output=True, text=True, check=False)
        return "submitit" in asked.stdout

    def trouble(self, folder: Path) -> str | None:
        """Return the failure of an ended job; None: it ended well."""
        from submitit import LocalJob, SlurmJob

        job = (SlurmJob if self.cluster == "slurm" else LocalJob)(folder, self.id)
        said = f"job {self.id} ({job.paths.stdout})"
        if not job.paths.result_pickle.exists():
            return f"{said} ended without a result: cancelled, or its machine failed"
        try:
            code = job.result()
        except Exception as error:  # any error of the job
            return f"{said}: {str(error).strip().splitlines()[-2:]}"
        return None if code in _WELL else f"{said}: its worker ended with {code}"

    @property
    def cancelling(self) -> str:
        """The command that cancels the job; its training is saved."""
        return f"scancel {self.id.partition('_')[0]}" if self.cluster == "slurm" else f"kill {self.id}"


class Jobs:
    """The jobs of a grid. ``watch`` is called every ``poll_seconds`` (default: what suits the cluster)."""

    def __init__(
        self, engine: Engine, cluster: Cluster, watch: Callable[[], object], poll_seconds: float | None = None
    ) -> None:
        self.engine, self.cluster, self.watch = engine, cluster, watch
        self.poll_seconds = POLL_SECONDS[cluster.kind] if poll_seconds is None else poll_seconds
        self.folder = engine.out.resolve() / "jobs"
        self.now: list[Submitted] = []  # waited for

    def run(self, spec: WorkerSpec) -> list[str]:
        """Run the remaining work in jobs: the cells, then what is measured alone; return the failures of jobs.

        Jobs of an earlier command that still wait or run count, and are waited for.

        Raises:
            UserError: the cluster takes no job.
        """
        left = sum(state.kind in ("training", "evaluation", "waiting") for state in self.engine.states())
        troubles = self._finish(spec, min(left, self.cluster.jobs or _MOST))
        answers = [pair for cell in self.engine.outlines for pair in cell.answers(self.engine.out)]
        if any(asked.alone and record is None for asked, record in answers):
            troubles += self._finish(replace(spec, speeds=True), 1)
        return troubles

    def _finish(self, spec: WorkerSpec, wanted: int) -> list[str]:
        """Submit jobs up to ``wanted`` live ones, and wait for all."""
        file = self.folder / "submitted.json"
        with held(self.folder, wait=True):  # one process submits at a time
            with reading(file, "the submitted jobs"):
                known = [Submitted(**job) for job in json.loads(file.read_text())] if file.is_file() else []
            self.now = [job for job in known if job.lives(self.folder)]
            if (more := wanted - len(self.now)) > 0:
                self.now += self.submit(spec, more)
                write_atomic(file, json.dumps([asdict(job) for job in self.now]))
        while any(job.lives(self.folder) for job in self.now):
            self.watch()
            time.sleep(self.poll_seconds)
        self.watch()
        return [trouble for job in self.now if (trouble := job.trouble(self.folder)) is not None]

    def submit(self, spec: WorkerSpec, count: int) -> list[Submitted]:
        """Submit ``count`` jobs, as one array. Raise UserError: the cluster takes no job."""
        kind, jobs = self.cluster.kind, []
        executor = self.cluster.executor(self.folder, f"mar-{self.engine.grid.name}")
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # jobs inherit it and outlive a Ctrl-C in this terminal
        try:
            with executor.batch():
                jobs += [executor.submit(Job(spec, count if kind == "local" else 1)) for _ in range(count)]
        except RuntimeError as error:
            raise UserError(f"{kind} takes no job: {' '.join(str(error).split())}") from None
        finally:
            signal.signal(signal.SIGINT, before)
        return [Submitted(kind, job.job_id) for job in jobs]

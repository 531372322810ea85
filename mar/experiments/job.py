"""What a cluster's job runs: a worker, under a process that minds the scheduler's signals.

Slurm's signals, and what becomes of the job:

    SIGUSR2 (submitit asks for it before the time is up)    saves, and is put back into the queue
    SIGTERM, then SIGKILL (scancel; preemption)             saves; Slurm then ends it, or puts it back itself
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mar.core.signals import forward_signals
from mar.experiments.workers import Work, shared_cores, start

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_POLL = 0.5  # seconds
_GRACE = 600.0  # seconds in which Slurm follows a SIGTERM up


@dataclass
class Job:
    """What submitit pickles, and calls on the machine that it gets.

    Attributes:
        work: of the worker.
        sharing: how many jobs share the cores that this one sees.
    """

    work: Work
    sharing: int = 1
    _worker: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self) -> int:
        """Run the worker until it finds no free cell; its exit code."""
        children: list[subprocess.Popen[bytes]] = []
        with forward_signals(children) as stopped:
            self._worker = start(self.work, shared_cores(self.sharing))
            children.append(self._worker)
            while self._worker.poll() is None:
                time.sleep(_POLL)
            if stopped and "SLURM_JOB_ID" in os.environ:
                time.sleep(_GRACE)  # to end now would tell Slurm that the job is done
        return self._worker.returncode

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit in its handler of SIGUSR2: stop the worker, which saves; what goes back into the queue."""
        from submitit.helpers import DelayedSubmission

        if self._worker is not None:
            with suppress(ProcessLookupError, ChildProcessError):  # it has ended
                os.kill(self._worker.pid, signal.SIGTERM)
                os.waitpid(self._worker.pid, 0)  # not Popen.wait: the handler may have interrupted it
        return DelayedSubmission(replace(self))

"""Several processes at one grid, on one machine: each takes the next cell that nobody holds.

python -m mar.experiments.launch OUT      # one of them; the others and the command need not run
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def passing_stops(children: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Passes SIGINT and SIGTERM on to child processes, as SIGTERM; yields the signals received."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        for child in children:
            if child.poll() is None:
                child.terminate()

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

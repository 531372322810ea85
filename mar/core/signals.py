"""Processor cores and child processes: how many cores this process may use, and forwarding its signals."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def forward_signals(children: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Forward SIGINT and SIGTERM to child processes as SIGTERM. Yield the signals received."""
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

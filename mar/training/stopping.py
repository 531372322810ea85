"""Stopping when asked: the iteration in progress ends, is saved, and the run ends with 128 + the signal's number.

Slurm sends SIGTERM before it preempts a job or its time is up, and so does torchrun to its workers; 143 is what a shell
reports of a process that SIGTERM ended, and what the launch files in ``scripts/`` put a job back in the queue for.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO = 2.0  # seconds in which a second Ctrl-C is the same one, passed on by a launcher


class Stop:
    """The first signal that came; 0: none. A second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal, self._at = 0, 0.0

    def _receive(self, number: int, frame: Any) -> None:
        if not self.signal:
            self.signal, self._at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._at > _ECHO:
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

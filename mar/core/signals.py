"""Processor cores, and the signals that ask a process and its children to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with(parent: int) -> None:
    """Stop this process as SIGTERM does, with its training saved, within two seconds of the end of its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def handled(receive: Callable[[int, Any], None], others: Iterable[str] = ()) -> Iterator[None]:
    """Call ``receive`` at SIGINT and SIGTERM inside the block.

    Args:
        others: further signals by name. One that is ignored (by nohup) or has a handler (of submitit) is left alone.
    """
    numbers = [number for name in others if (number := getattr(signal, name, None)) is not None]
    free = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    before = {number: signal.signal(number, receive) for number in {signal.SIGINT, signal.SIGTERM, *free}}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def forward_signals(children: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Forward SIGINT and SIGTERM to child processes as SIGTERM. Yield the signals received."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        for child in children:
            if child.poll() is None:
                child.terminate()

    with handled(receive):
        yield received

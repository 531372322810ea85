"""Processor cores, free memory, and the signals that ask a process and its children to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still take, of the machine and of its control groups (v1, v2)."""
    free, groups = sys.maxsize, []
    with suppress(OSError, ValueError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), free)
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in groups:
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        limit, usage = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        for depth in range(len(Path(path).parts)):
            folder = top.joinpath(*Path(path).parts[1 : depth + 1])
            with suppress(OSError, ValueError):  # the root has no limit; "max" is none
                pages = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                cache = int(pages.get("total_inactive_file", pages.get("inactive_file", 0)))  # given back when needed
                free = min(free, int((folder / limit).read_text()) - int((folder / usage).read_text()) + cache)
    return max(0, free)


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

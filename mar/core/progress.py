"""Progress of long work: one type, the bar and the console of the commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mar.core.log import logger

if TYPE_CHECKING:
    from rich.console import Console


Progress = Callable[[int, int], None]  # (done, total)


@contextmanager
def bar(what: str, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yields ``progress(done, total, text="")``; the bar is ``shown`` by one process of several, on standard error,
    unless ``-q`` silences it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    head, text = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("fields[what]", "description"))
    console = Console(stderr=True)
    track = BarColumn(max(4, min(40, console.width - 66)))  # beside 66 columns of figures
    columns = (head, track, MofNCompleteColumn(), text, TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, disable=not (shown and logger.isEnabledFor(logging.INFO)), console=console) as display:
        task = display.add_task("", total=None, what=what)
        yield lambda done, total, text="": display.update(task, completed=done, total=total, description=text)
        if display.tasks[0].total is None:  # work that reports no progress has ended all the same
            display.update(task, completed=1, total=1)


def wide_console(stderr: bool = False) -> Console:
    """The terminal, or COLUMNS or else 140 columns where the output goes to a file or a pipe. Texts are printed as they
    are: names may hold what rich reads as markup or emoji."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 140
    return console

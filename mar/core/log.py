"""What the library says: the logger "mar". ``logging.getLogger("mar").setLevel("WARNING")`` silences it.

Information goes to standard output. Warnings, and remarks beside a result (``aside``), go to standard error. Of several
processes the first one prints; every process prints its own errors.
"""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger("mar")
aside = logging.getLogger("mar.aside")


class _Printer(logging.Handler):
    """Print the message alone, to the current streams: notebooks and tests replace them."""

    beside = False  # the standard output holds a result for programs

    def emit(self, record: logging.LogRecord) -> None:
        first = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
        if first != "0" and record.levelno < logging.ERROR:
            return
        ours = not self.beside and record.levelno < logging.WARNING and record.name != aside.name
        try:
            print(record.getMessage(), file=sys.stdout if ours else sys.stderr, flush=True)
        except Exception:  # a closed stream ends no training
            self.handleError(record)


_printer = _Printer()
if not logger.handlers:
    logger.addHandler(_printer)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a root handler would say each line twice


def set_up(verbosity: int = 0, beside: bool = False) -> None:
    """Say warnings alone (-1), everything (1) or what is usual (0); ``beside``: all of it on the standard error."""
    logger.setLevel({-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}[verbosity])
    _printer.beside = beside

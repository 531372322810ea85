"""Errors that the user can correct. The command line prints them in one line and exits with code 2."""

from __future__ import annotations

from collections.abc import Iterable

from orderings import grid
from orderings.grid import InvalidRequest, MarError, Unsupported

__all__ = ["InvalidRequest", "MarError", "PeerFailed", "Stopped", "Unsupported", "UserError", "unknown"]


class UserError(MarError):
    """A recipe, command or file that the user can correct; the message says how."""


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the nearest existing name."""
    return UserError(grid.unknown(what, name, choices))


class Stopped(Exception):
    """A signal asked the run to stop, and the run has saved its state."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class PeerFailed(Exception):
    """Another process of this run failed and has reported the error; this one exits silently."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

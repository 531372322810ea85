"""Errors that the user can correct. The command line prints them in one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from orderings.grid import InvalidRequest, MarError, Unsupported

__all__ = ["InvalidRequest", "MarError", "PeerFailed", "Stopped", "Unsupported", "UserError", "unknown"]


class UserError(MarError):
    """A recipe, command or file that the user can correct; the message says how."""


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the nearest existing name."""
    names = sorted(choices)
    if not names:
        return UserError(f"unknown {what} {name!r}: it has none")
    whole_or_last = (str(name), str(name).rpartition(".")[2])  # a key may be written with its section before it
    near = [found for text in whole_or_last for found in difflib.get_close_matches(text, names, n=1, cutoff=0.5)]
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {name!r}: {hint}choose from {', '.join(names)}")


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

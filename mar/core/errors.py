"""Errors that are the user's to mend. The command line prints them in one line and ends with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from orderings.grid import InvalidRequest, Unsupported

__all__ = ["InvalidRequest", "Unsupported", "UserError", "unknown"]


class UserError(Exception):
    """Something in the recipe, the command or the files that the user can mend; the message says how."""


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest one that does."""
    names = sorted(choices)
    if not names:
        return UserError(f"unknown {what} {name!r}: it has none")
    whole_or_last = (str(name), str(name).rpartition(".")[2])  # a key may be written with its section before it
    near = [found for text in whole_or_last for found in difflib.get_close_matches(text, names, n=1, cutoff=0.5)]
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {name!r}: {hint}choose from {', '.join(names)}")


class Stopped(Exception):
    """The run was asked to stop by a signal, and saved before it did."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class EndedElsewhere(Exception):
    """Another process of this run has said why it ends; this one ends with it, without a word."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

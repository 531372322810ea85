"""What a contract test returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec

P = ParamSpec("P")


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds for a subject, with what was looked at, or what broke it."""

    claim: str
    subject: str
    passed: bool
    detail: str


class Broken(Exception):
    """A claim that does not hold; the message says where."""


def require(holds: bool, otherwise: str) -> None:
    """Raises Broken(otherwise) unless ``holds``."""
    if not holds:
        raise Broken(otherwise)


@dataclass(frozen=True)
class Claim(Generic[P]):
    """A check with its claim in words. Called as ``claim(subject, *what the check takes)``."""

    text: str
    check: Callable[P, str]

    def __call__(self, subject: str, *args: P.args, **kwargs: P.kwargs) -> Verdict:
        try:
            return Verdict(self.text, subject, True, self.check(*args, **kwargs))
        except Broken as broken:
            return Verdict(self.text, subject, False, str(broken))
        except Exception as error:  # a component that raises has broken its contract: that too is a verdict
            lines = str(error).splitlines() or [""]
            return Verdict(self.text, subject, False, f"raised {type(error).__name__}: {lines[0]}")


def claim(text: str) -> Callable[[Callable[P, str]], Claim[P]]:
    """Makes a claim of a check, which returns what it looked at and raises Broken where the claim does not hold."""
    return lambda check: Claim(text, check)

"""Autoregressive generation in any order and any grouping of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mar.run import Run, load

__all__ = ["Run", "load"]


def __getattr__(name: str) -> Any:
    """``mar.load`` and ``mar.Run``, imported when first used: the command line answers before torch is there."""
    if name in __all__:
        from mar import run

        return getattr(run, name)
    raise AttributeError(f"module 'mar' has no attribute {name!r}")

"""Autoregressive generation in any order and any grouping of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mar.experiments.result import results
    from mar.run import Run, fit, load, train

    __version__: str

_HOME = {**dict.fromkeys(("Run", "fit", "load", "train"), "mar.run"), "results": "mar.experiments.result"}
__all__ = ["Run", "__version__", "fit", "load", "results", "train"]


def __getattr__(name: str) -> Any:
    """``mar.load`` and the like, imported when first used: the command line answers before torch is there."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("mar-orderings")
        except PackageNotFoundError:  # run from a source tree
            return "unknown"
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mar' has no attribute {name!r}")

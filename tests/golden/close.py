"""Nested values that agree: numbers to one in a million, everything else exactly."""

from __future__ import annotations

import math
from typing import Any

REMOVED = {"nll_standing", "nll_p_holm_to_best"}  # columns of table.csv that CHANGELOG.md names as removed


def differences(old: Any, new: Any, where: str = "", rel: float = 1e-6) -> list[str]:
    """Where ``new`` differs from ``old``. Keys that only ``new`` has are no difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        missing = [f"{where}.{key} is missing" for key in old if key not in new and key not in REMOVED]
        pairs = [(old[key], new[key], f"{where}.{key}") for key in old if key in new]
        return missing + [text for pair in pairs for text in differences(*pair, rel)]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{where} has {len(new)} entries, not {len(old)}"]
        return [
            text
            for k, pair in enumerate(zip(old, new, strict=True))
            for text in differences(*pair, f"{where}[{k}]", rel)
        ]
    left, right = number(old), number(new)
    if left is not None and right is not None:
        same = math.isclose(left, right, rel_tol=rel, abs_tol=1e-9) or (math.isnan(left) and math.isnan(right))
    else:
        same = old == new
    return [] if same else [f"{where} is {new!r}, not {old!r}"]


def number(value: Any) -> float | None:
    """The number that a value or a cell of a CSV is."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None

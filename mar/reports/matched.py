"""The lines under a table that say how alike its cells are in size and in training."""

from __future__ import annotations

from mar.experiments.result import AblationResult
from mar.experiments.statistics import FAIR, QUANTITIES, Range, spreads, unfair


def matched_notes(result: AblationResult) -> list[str]:
    """The spread over cells of parameters, examples seen and compute, and a warning; nothing for a single model."""
    found, matched = spreads(result), str(result.grid.get("matched") or "")
    if not result.axes or not found:
        return []
    said = "; ".join(f"{QUANTITIES[name]} {_range(spread)}" for name, spread in found.items())
    of = f"Cells matched in {QUANTITIES[matched]}" if matched else "Cells"
    notes = [f"{of}: {said}."]
    if matched and matched not in found:
        notes.append(f"Warning: whether {QUANTITIES[matched]} match is unknown: speed was not measured in every cell.")
    if unfair(result):
        notes.append(
            f"Warning: {QUANTITIES[matched]} should match and differ by up to {found[matched].excess:.0%} (more than "
            f"{FAIR:.0%}): what a cell gains may be what it was given."
        )
    return notes


def _range(spread: Range) -> str:
    low, high = _number(spread.low), _number(spread.high)
    return low if spread.excess == 0 else f"{low} to {high} (×{1 + spread.excess:.3g})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value < 1e9 else f"{value:.3g}"

"""What bold figures and the sign of a tie mean, under a table."""

from __future__ import annotations

from mar.ablation.ties import Ties
from mar.reports.column import TIED


def tie_note(figure: str, ties: Ties, over: str) -> list[str]:
    """Of a column and what its tests are over; nothing where none was made."""
    if not ties.p_holm:
        return []
    return [
        f"{figure}, bold: the best of the rows scored alike; {TIED}: not told apart from it (paired t-test over "
        f"{over}, p > {ties.level:.2g} after Holm's correction over {len(ties.p_holm)} comparisons with the best)."
    ]

"""What bold figures and the sign of a tie mean, under a table."""

from __future__ import annotations

from collections.abc import Mapping

from mar.experiments.ties import Ties
from mar.reports.column import TIED


def tie_note(ties_of: Mapping[str, Ties], over: str) -> list[str]:
    """Of the columns and what their tests are over; nothing where none was made."""
    tested = {figure: ties for figure, ties in ties_of.items() if ties.p_holm}
    if not tested:
        return []
    level = next(iter(tested.values())).level
    counts = " and ".join(f"{len(ties.p_holm)} comparisons with the best {figure}" for figure, ties in tested.items())
    return [
        f"{' and '.join(tested)}, bold: the best of the rows scored alike; {TIED}: not told apart from it (paired "
        f"t-test over {over}, p > {level:.2g} after Holm's correction over {counts})."
    ]

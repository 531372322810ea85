"""The table over seeds, as heads and cells for every form of it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from mar.ablation.result import AblationResult
from mar.ablation.seeds import SEED, SeedRow, Spread, over_seeds
from mar.reports.column import MISSING

Cells = list[list[str]]

NOTE = (
    "Mean ± standard deviation over training seeds; p: paired t-test over seeds that the mean difference to the "
    "reference of the same seed is zero, Holm-corrected over this table."
)


def seeds_table(result: AblationResult) -> tuple[list[str], Cells]:
    """Heads, and the cells of each row; no rows without several seeds. Columns that no row fills are left out."""
    rows = over_seeds(result)
    bits = any(row.likelihood is not None and row.likelihood.bits_per_dim is not None for row in result.rows)
    unit, digits = ("bits/dim", 4) if bits else ("nats/image", 2)
    reading: dict[str, Callable[[SeedRow], str]] = {
        **{axis: (lambda row, axis=axis: row.settings[axis]) for axis in result.axes if axis != SEED},
        "plan": lambda row: row.plan,
        "seeds": lambda row: str(row.nll.n) if row.nll is not None else MISSING,
        f"NLL, {unit} ↓": lambda row: _shown(row.nll, digits),
        f"Δ to {result.reference}, {unit} ↓": lambda row: _shown(row.difference, digits, "+"),
        "p (Holm)": lambda row: MISSING if row.p_holm is None else f"{row.p_holm:.3f}",
        "FID ↓": lambda row: _shown(row.fid, 2),
        "linear probe ↑": lambda row: _shown(row.probe, 3),
    }
    columns = {head: [read(row) for row in rows] for head, read in reading.items()}
    kept = {head: cells for head, cells in columns.items() if set(cells) - {MISSING}}
    return list(kept), [list(cells) for cells in zip(*kept.values(), strict=True)]


def seeds_markdown(result: AblationResult) -> list[str]:
    """The lines of the section; none without several seeds."""
    heads, rows = seeds_table(result)
    if not rows:
        return []
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
    return ["## Over seeds", "", *lines, "", f"- {NOTE}", ""]


def seeds_html(result: AblationResult) -> str:
    """The section of the page; nothing without several seeds."""
    heads, rows = seeds_table(result)
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in cells)}</tr>" for cells in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return (
        f'<section id="seeds"><h2>Over seeds</h2><p class="hint">{escape(NOTE)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table over seeds">{table}</div></section>'
    )


def _shown(spread: Spread | None, digits: int, sign: str = "") -> str:
    return MISSING if spread is None else f"{spread.mean:{sign}.{digits}f} ± {spread.deviation:.{digits}f}"

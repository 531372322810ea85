"""An ablation's table as LaTeX, for \\input in a paper that loads booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from mar.experiments.result import AblationResult
from mar.experiments.statistics import over_seeds
from mar.experiments.ties import nll_ties
from mar.reports.column import ColumnOf, R, best_rows
from mar.reports.columns import columns
from mar.reports.published import published_notes
from mar.reports.seeds import seed_columns, seed_notes
from mar.reports.ties import tie_note

_LEFT_OUT = ("problem", "AR steps")
_ESCAPED = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$", "–": "--",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "Δ": r"$\Delta$", "×": r"$\times$",
    "τ": r"$\tau$", "≈": r"$\approx$", "†": r"$^\dagger$", "²": "$^2$", "³": "$^3$",
}  # fmt: skip


def latex(result: AblationResult) -> str:
    """Every row, best values bold, then the baselines. What was refused or failed is said under the other tables."""
    shown = [column for column in columns(result) if column.title not in _LEFT_OUT]
    notes = [*tie_note({"NLL": nll_ties(result)}, "images"), *published_notes(result)]
    return _tabular(shown, result.rows, result.baselines, notes)


def seeds_latex(result: AblationResult) -> str:
    """The table over seeds; empty without several."""
    rows = over_seeds(result)
    notes = [*seed_notes(result), *published_notes(result)]
    return _tabular(seed_columns(result), rows, (), notes) if rows else ""


def _tabular(shown: Sequence[ColumnOf[R]], rows: Sequence[R], feet: Sequence[R], notes: Sequence[str]) -> str:
    """The rows, a line, the feet; the notes as comments."""
    best = [best_rows(column, rows) for column in shown]
    spec = "".join("r" if column.numeric else "l" for column in shown)
    head = _line([escape(column.head) for column in shown])
    body = [
        _line([_cell(column, row, number in leaders) for column, leaders in zip(shown, best, strict=True)])
        for number, row in enumerate(rows)
    ]
    last = [r"\midrule", *(_line([_cell(column, row, False) for column in shown]) for row in feet)] if feet else []
    table = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", head, r"\midrule", *body, *last, r"\bottomrule"]
    return "\n".join([*table, r"\end{tabular}", *(f"% {escape(note)}" for note in notes), ""])


def _cell(column: ColumnOf[R], row: R, best: bool) -> str:
    value = column.value(row)
    text = str(value) if column.words and value is not None else column.show(row)  # a font may lack a curve's bars
    return rf"\textbf{{{escape(text)}}}" if best else escape(text)


def escape(text: str) -> str:
    """Plain text as LaTeX."""
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"

"""An ablation's table as LaTeX, for \\input in a paper that loads booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from mar.ablation.result import AblationResult, Row
from mar.reports.column import Column, best_rows
from mar.reports.columns import columns

_LEFT_OUT = ("problem", "AR steps")
_ESCAPED = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$", "–": "--",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "Δ": r"$\Delta$", "×": r"$\times$",
}  # fmt: skip


def latex(result: AblationResult) -> str:
    """Every row, best values bold, then the baselines. What was refused or failed is said under the other tables."""
    shown = [column for column in columns(result) if column.title not in _LEFT_OUT]
    best = [best_rows(column, result.rows) for column in shown]
    spec = "".join("r" if column.numeric else "l" for column in shown)
    body = [
        _line([_cell(column, row, number in rows) for column, rows in zip(shown, best, strict=True)])
        for number, row in enumerate(result.rows)
    ]
    feet = [_line([_cell(column, row, False) for column in shown]) for row in result.baselines]
    head = _line([escape(column.head) for column in shown])
    parts = [r"\toprule", head, r"\midrule", *body, *([r"\midrule", *feet] if feet else []), r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{spec}}}", *parts, r"\end{tabular}", ""])


def _cell(column: Column, row: Row, best: bool) -> str:
    value = column.value(row)
    text = str(value) if column.words and value is not None else column.show(row)  # a font may lack a curve's bars
    return rf"\textbf{{{escape(text)}}}" if best else escape(text)


def escape(text: str) -> str:
    """Plain text as LaTeX."""
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"

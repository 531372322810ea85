"""The LaTeX table has the numbers of the others, and nothing that LaTeX would trip over."""

from __future__ import annotations

import re

from mar.experiments.result import AblationResult
from mar.reports.latex import escape, latex


def test_every_line_has_as_many_cells_as_the_table_has_columns(several: AblationResult) -> None:
    text = latex(several)
    spec = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert spec is not None and all(len(re.split(r"(?<!\\)&", row)) == len(spec.group(1)) for row in rows)
    assert len(rows) == 1 + len(several.rows) + len(several.baselines)


def test_numbers_and_bold_are_those_of_the_table(result: AblationResult) -> None:
    text = latex(result)
    assert r"\textbf{12.50}" in text and "13.75" in text and r"\toprule" in text


def test_what_latex_reads_otherwise_is_escaped(several: AblationResult) -> None:
    assert escape("a_b & 5% ± <{x}>") == r"a\_b \& 5\% $\pm$ $<$\{x\}$>$"
    assert latex(several).isascii()

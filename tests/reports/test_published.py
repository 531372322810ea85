"""Every form of the report shows published figures beside our own, the agreement of order, the best and what ties."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from mar.experiments.result import AblationResult
from mar.reports.columns import columns
from mar.reports.latex import latex, seeds_latex
from mar.reports.page import page
from mar.reports.published import published_notes
from mar.reports.seeds import seed_columns
from mar.reports.table import as_csv, markdown, seeds_csv, terminal, write_tables
from tests.experiments.made import generated, made, row, scored

NAMES = ("raster", "spiral", "random")
NATS = {"raster": (80.0, 81.0, 82.0), "spiral": (80.5, 80.5, 82.1), "random": (90.0, 91.1, 92.0)}  # of three trainings


def paper(**keys: Any) -> dict[str, Any]:
    rows = [{"where": {"ordering": name}, "value": value} for name, value in zip(NAMES, (8.5, 4.25, 2), strict=True)]
    return {
        "title": "FID, ImageNet 256²",
        "of": "fid",
        "source": "a paper, Table 1",
        "recalled": True,
        "rows": rows,
    } | keys


@pytest.fixture
def ablation() -> AblationResult:
    """Three orderings, three seeds: FID in the paper's order reversed; spiral ties with raster, random does not."""
    rows = [
        row({"ordering": name, "seed": str(seed)}, likelihood=scored([nats - 1, nats + 1]), images=generated(10 + k))
        for k, name in enumerate(NAMES)
        for seed, nats in enumerate(NATS[name])
    ]
    return made(rows, published=[paper(), paper(title="IS", of="inception_score", recalled=False)])


@pytest.fixture
def single(ablation: AblationResult) -> AblationResult:
    """One training of each, on four images."""
    nats = {"raster": (1.0, 5.0, 3.0, 6.0), "spiral": (1.1, 4.9, 3.2, 5.9), "random": (5.0, 9.1, 7.0, 10.0)}
    rows = [row({"ordering": name}, likelihood=scored(values), images=generated(9)) for name, values in nats.items()]
    return made(rows, published=ablation.grid["published"])


def test_published_figures_stand_in_columns_of_their_own(ablation: AblationResult) -> None:
    heads = [column.head for column in columns(ablation)]
    assert heads.index("FID ↓") < heads.index("published: FID, ImageNet 256² ↓") and "IS ↑" in heads
    text = markdown(ablation)
    assert text.count("| 8.50† |") == 4 and text.count("| **2.00†** |") == 4  # three seeds, and the row over seeds


def test_the_notes_state_the_agreement_its_source_and_that_ours_is_another_scale(ablation: AblationResult) -> None:
    recalled, read = published_notes(ablation)
    for said in ("a paper, Table 1", "† recalled, not re-read", "other data and another scale", "τ-b -1.00", "3 rows",
                 "p = 0.333 (exact)", "our FID"):  # fmt: skip
        assert said in recalled
    assert "recalled" not in read and "our IS (3 rows) one column's figures are all equal" in read


def test_csv_has_them_as_numbers(ablation: AblationResult) -> None:
    first, *_ = csv.DictReader(io.StringIO(as_csv(ablation)))
    assert float(first["published: FID, ImageNet 256² (recalled)"]) == 8.5 and float(first["published: IS"]) == 8.5
    over, near, far = csv.DictReader(io.StringIO(seeds_csv(ablation)))
    assert float(over["fid_mean"]) == 10.0 and float(over["published: IS"]) == 8.5
    standing = [line["nll_bits_per_dim_standing"] for line in (over, near, far)]
    assert standing == ["best", "tied", ""] and float(far["nll_bits_per_dim_p_holm_to_best"]) < 0.01


def test_best_and_tied_rows_are_marked_in_every_form(single: AblationResult, tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=140, record=True, file=io.StringIO())
    console.print(*terminal(single), sep="\n")
    text, tex, html = markdown(single), latex(single), page(single, tmp_path)
    best, tied = "0.0845 ± 0.0225", "0.0851 ± 0.0225 ≈"
    assert f"| **{best}** |" in text and f"| {tied} |" in text and text.count("≈ |") == 1
    assert r"\textbf{0.0845 $\pm$ 0.0225}" in tex and r"0.0851 $\pm$ 0.0225 $\approx$" in tex
    assert f">{tied}</td>" in html and "0.0851 ≈" in console.export_text()
    assert "≈: not told apart from it (paired t-test over images, p > 0.05" in " ".join(text.split())
    assert [line["nll_standing"] for line in csv.DictReader(io.StringIO(as_csv(single)))] == ["best", "tied", ""]


def test_over_seeds_ties_stand_in_the_table_over_seeds_alone(ablation: AblationResult, tmp_path: Path) -> None:
    first, over = markdown(ablation).split("## Over seeds")
    assert "≈" not in first and over.count("≈ |") == 1 and "paired t-test over seeds" in over
    assert " ≈</td>" in page(ablation, tmp_path) and r"$\approx$" in seeds_latex(ablation)
    assert "published: FID, ImageNet 256² ↓" in [column.head for column in seed_columns(ablation)]


def test_latex_states_the_agreement_as_a_comment_and_is_plain_text(ablation: AblationResult) -> None:
    for text in (latex(ablation), seeds_latex(ablation)):
        assert text.isascii() and "8.50$^\\dagger$" in text
        assert any(line.startswith("% Published: ") and "-1.00" in line for line in text.splitlines())


def test_tables_over_seeds_are_files_of_their_own(
    ablation: AblationResult, single: AblationResult, tmp_path: Path
) -> None:
    assert [path.name for path in write_tables(single, tmp_path)] == ["table.md", "table.csv", "table.tex"]
    assert [path.name for path in write_tables(ablation, tmp_path)][3:] == ["seeds.csv", "seeds.tex"]

"""``mar report`` makes the page and the tables of every results folder that the project keeps."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mar.cli.main import app
from mar.core.errors import UserError
from mar.experiments.result import AblationResult, read_result
from mar.reports.publish import write_result

RESULTS = sorted({path.parent for path in Path("results").rglob("result.json*")})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


@pytest.mark.parametrize("kept", RESULTS, ids=str)
def test_every_results_folder_loads_and_has_the_pictures_of_its_rows(kept: Path) -> None:
    found = read_result(kept)
    named = [picture for row in found.rows for picture in (row.samples, row.animation) if picture is not None]
    assert found.rows and all((kept / picture).is_file() for picture in named)


@pytest.fixture
def grid(several: AblationResult, folder: Path) -> Path:
    write_result(several, folder)
    return folder


def test_the_page_is_written_beside_the_result_or_elsewhere(grid: Path) -> None:
    assert run(str(grid)).exit_code == 0 and "<h1>" in (grid / "index.html").read_text()
    assert run(str(grid), "--out", str(grid / "page.html")).exit_code == 0
    assert (grid / "page.html").read_text() == (grid / "index.html").read_text()


def test_columns_and_a_pivot_are_chosen_in_every_form(grid: Path) -> None:
    tex = run(str(grid), "--latex", "--columns", "network,ordering,NLL").output
    assert r"network & ordering & NLL, bits/dim $\downarrow$ \\" in tex
    pivot = run(str(grid), "--markdown", "--pivot", "network", "ordering", "NLL").output
    assert "| network | raster ↓ | random ↓ |" in pivot and not (grid / "index.html").exists()
    rows = list(
        csv.DictReader(io.StringIO(run(str(grid), "--csv", "--columns", "axis_network,nll_bits_per_dim").output))
    )
    assert list(rows[0]) == ["axis_network", "nll_bits_per_dim"] and len(rows) == 4
    assert json.loads(run(str(grid), "--json").output)[0]["probe_accuracy"] == 0.875


def test_what_makes_no_table_is_refused(grid: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ([str(grid), "--latex", "--csv"], "choose one form"),
        ([str(grid), "--columns", "NLL"], "belong to"),
        ([str(grid), "--latex", "--columns", "NL"], "NLL"),
        ([str(grid), "--latex", "--seeds"], "one seed"),
        ([str(tmp_path / "nothing")], "no result.json"),
    ):
        done = run(*arguments)
        assert isinstance(done.exception, UserError) and said in str(done.exception)

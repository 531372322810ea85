"""The tables of papers: every file is a grid with its figures, and the command makes, keeps and explains its table."""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mar import build
from mar.cli import main
from mar.core.errors import UserError
from mar.experiments import shipped
from mar.experiments.engine import Engine
from mar.experiments.grid import GridFile, matches, read
from mar.experiments.result import AblationResult
from mar.experiments.shipped import SCALES, TABLES, Table, find, tables
from mar.reports.publish import publish

NAMES = {
    "mar-table1", "mar-table3", "mar-table5", "mar-steps", "mask-ratio", "rar-orders", "rar-annealing",
    "eonade-ensemble", "made-masks", "uci", "ardm-budget", "block-size", "networks", "audio", "speed",
}  # fmt: skip
SHIPPED = [table for scales in tables().values() for table in scales]
TINY = """# mar reproduce tiny --scale digits
# Two orders are tried.
# Time: a moment.
question: Which order?
recipe: digits
overrides: [train.iterations=2, train.batch_size=8, train.validate_every=0, train.sample_every=0,
  class_conditional=false, train.mask_ratio=plan, network.kind=made, "network.widths=[8]"]
axes: {ordering: [raster, random]}
matched: parameters
nll: {images: 12}
fid: null
"""


def dummies(table: Table) -> list[str]:
    return [f"given.{key}=somewhere" for key, needed in table.given.items() if needed]


@cache
def grid_of(table: Table) -> GridFile:
    return read(table.grid, dummies(table))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main.app, ["reproduce", *arguments])


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tables with one in it; the working directory is beside it."""
    folder = tmp_path / "tables"
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "digits.yaml").write_text(TINY)
    (folder / "tiny" / "gpu.yaml").write_text(TINY.replace("recipe:", 'given: {data: "???"}\nrecipe:'))
    monkeypatch.setattr(shipped, "TABLES", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_tables_are_those_of_the_plan() -> None:
    assert {table.name for table in SHIPPED} <= NAMES
    assert {path.stem for path in TABLES.glob("*/*.yaml")} <= set(SCALES)


@pytest.mark.parametrize("table", SHIPPED, ids=lambda table: table.grid)
def test_every_file_says_its_command_its_question_and_its_time(table: Table) -> None:
    first = table.path.read_text().splitlines()[0]
    assert first.startswith(f"# mar reproduce {table.name} --scale {table.scale}")
    assert len(table.header[0]) > 20 and table.header[1]


@pytest.mark.parametrize("table", SHIPPED, ids=lambda table: table.grid)
def test_every_file_is_a_grid_whose_recipes_are_known(table: Table) -> None:
    grid = grid_of(table)
    for _, recipe in grid.recipes():
        build.resolve(recipe)
    assert list(grid.recipes())


@pytest.mark.parametrize("table", SHIPPED, ids=lambda table: table.grid)
def test_every_published_figure_stands_in_a_row(table: Table) -> None:
    grid = grid_of(table)
    cells = [cell.settings for cell in grid.combinations()]
    for column in grid.published:
        for figure in column.rows:
            of_axes = {axis: value for axis, value in figure.where.items() if axis in grid.axes}
            assert any(matches(cell, of_axes) for cell in cells), f"{column.title}: {figure.where}"


def test_without_a_name_the_tables_are_listed(shelf: Path) -> None:
    said = run().output
    shown = "tiny: Which order? --scale digits a moment. --scale gpu --data PATH a moment."
    assert said.split() == shown.split()


def test_the_smallest_scale_is_the_default(shelf: Path) -> None:
    assert find("tiny") == Table("tiny", "digits") and find("tiny", "gpu").given == {"data": True}
    assert read("tiny/digits").name == "tiny-digits"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["tyni"], "unknown table 'tyni': did you mean 'tiny'"),
        (["tiny", "--scale", "digit"], "did you mean 'digits'? choose from digits, gpu"),
        (["tiny", "--scale", "paper"], "unknown scale of tiny 'paper': choose from digits, gpu"),
        (["tiny", "--scale", "gpu"], "tiny at the scale gpu needs --data PATH"),
        (["tiny", "--data", "."], "leave --data out"),
        (["tiny", "--scale", "gpu", "--data", "nowhere"], "there is no nowhere"),
        (["tiny", "train.iteration=3"], "did you mean 'train.iterations'"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(shelf: Path, arguments: list[str], message: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, UserError) and message in str(error)


def test_what_the_recipes_read_need_not_be_there_to_list_the_cells(shelf: Path) -> None:
    more = 'prepare: ["cache ${given.data} --out ${given.out}/made"]\n'
    file = shelf / "tiny" / "gpu.yaml"
    reads = 'overrides: [data.kind=cache, "data.path=${given.out}/made", '
    file.write_text(file.read_text().replace("overrides: [", reads) + more)
    said = run("tiny", "--scale", "gpu", "--data", ".", "--dry-run")
    assert said.exit_code == 0, said.exception
    assert "prepare first: mar cache . --out runs/reproduce/tiny-gpu/made" in said.output.replace("\n", " ")
    assert "2 cell(s), whose cost is known when that is done" in said.output and not Path("runs").exists()


def test_a_table_is_made_and_kept_with_how_it_was_made(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Path("results/tiny")
    kept.mkdir(parents=True)
    (kept / "README.md").write_text("my own words")
    done = run("tiny", "--results", str(kept))
    assert done.exit_code == 0, done.exception
    assert Path("runs/reproduce/tiny-digits/grid.yaml").is_file() and (kept / "README.md").read_text() == "my own words"
    text, about = (kept / "table.md").read_text(), json.loads((kept / "provenance.json").read_text())
    assert "Cells matched in parameters" in text and "## How it was made" in text
    assert about["trained"][0]["cells"] == ["raster", "random"] and about["environment"]["cpu"]
    assert set(about["seconds"]) == {"training", "NLL"} and re.search(r"training \S+ s, NLL \S+ s; together", text)
    result = AblationResult.load(kept / "result.json")
    assert not (kept / "index.html").exists()
    publish(Engine(read("tiny/digits"), Path("runs/reproduce/tiny-digits")), kept, large=100)
    assert not (kept / "result.json").exists() and gzip.decompress((kept / "result.json.gz").read_bytes())
    assert AblationResult.load(kept / "result.json.gz").rows == result.rows
    in_nats = run("tiny", "--results", str(kept), "unit=nats")
    assert in_nats.exit_code == 0, in_nats.exception
    for folder in (kept, Path("runs/reproduce/tiny-digits")):
        assert "NLL, nats" in (folder / "table.md").read_text() and "bits/dim" not in (folder / "table.md").read_text()


def test_cells_trained_at_another_revision_are_named(shelf: Path) -> None:
    assert run("tiny", "--results", "kept").exit_code == 0
    of_runs = sorted(Path("runs/reproduce/tiny-digits/runs").glob("*/environment.json"))
    about = json.loads(of_runs[0].read_text())
    of_runs[0].write_text(json.dumps(about | {"revision": "0123456789ab"}))
    assert run("tiny", "--results", "kept").exit_code == 0
    assert "Trained at revision `0123456789ab`" in Path("kept/table.md").read_text()

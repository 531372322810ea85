"""``mar orderings``."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from mar.cli.main import app
from mar.cli.orders import GALLERY
from mar.core.errors import InvalidRequest, Unsupported, UserError
from orderings import ADAPTIVE, ORDERINGS, PARTITIONS, PlanSpec


def run(*words: str):
    return CliRunner().invoke(app, ["orderings", *words], catch_exceptions=False)


def test_list_names_everything_with_its_options():
    content = json.loads(run("list", "--json").output)
    assert [row["name"] for row in content["orderings"]] == list(ORDERINGS)
    assert [row["name"] for row in content["partitions"]] == list(PARTITIONS)
    assert [row["name"] for row in content["adaptive"]] == list(ADAPTIVE)
    spiral = next(row for row in content["orderings"] if row["name"] == "spiral")
    assert spiral["grids"] == ["2-D", "3-D"]
    assert spiral["options"]["inward"] == {"values": "inward|outward", "default": "inward"}
    table = run("list").output
    assert all(name in table for name in [*ORDERINGS, *PARTITIONS, *ADAPTIVE])


def test_show_prints_the_ranks_and_writes_the_picture(tmp_path):
    path = tmp_path / "plan.png"
    output = run("show", "spiral", "--grid", "3x3", "--partition", "equal:4", "--out", str(path)).output
    assert "spiral/equal:4 on 3x3: 9 tokens in 3 AR steps (sizes 4, 4, 1)" in output
    lines = [line.split() for line in output.splitlines()]
    assert lines[1:4] == [["0", "1", "2"], ["7", "8", "3"], ["6", "5", "4"]]
    assert f"wrote {path}" in output and Image.open(path).format == "PNG"


def test_show_draws_by_the_seed():
    first, again, other = (run("show", "random", "--grid", "4x4", "--seed", seed).output for seed in ("1", "1", "2"))
    assert first == again != other


def test_the_gallery_shows_a_selection_or_what_is_named(tmp_path):
    assert len({PlanSpec.parse(text) for text in GALLERY}) == len(GALLERY)
    path = tmp_path / "some.png"
    assert f"wrote {path}" in run("gallery", "spiral", "random/cosine:4", "--grid", "6x6", "--out", str(path)).output
    assert Image.open(path).format == "PNG"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "spirl"), "did you mean 'spiral'"),
        (("show", "spiral", "--grid", "64"), "not the 1-D 64"),
        (("show", "raster", "--grid", "8x8", "--partition", "cosine:100"), "more steps than the 64 tokens"),
        (("show", "raster/equal:2", "--partition", "equal:4"), "already names a partition"),
        (("show", "raster", "--out", "a.jpg"), "ends in .png or .gif"),
        (("gallery", "--out", "a.jpg"), "a .png file"),
        (("show", "raster", "--grid", "8by8"), "a grid is written like"),
    ],
)
def test_mistakes_raise_one_line(words, message):
    with pytest.raises((UserError, Unsupported, InvalidRequest), match=message) as error:
        run(*words)
    assert "\n" not in str(error.value)

"""A grid or a result that is damaged, foreign or nonsense is one line, and nothing is written."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mar.core.errors import UserError
from mar.experiments.engine import Engine
from mar.experiments.grid import read, stored
from mar.experiments.result import AblationResult
from mar.experiments.state import read_outlines

CUT = b'{"rows": [], "baselines": [], "mod'
OWN = b"recipe: digits\norderings: [raster]\n"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe\x00", b"[1,2", b"- a", b"a: &a [*a]", b"x: " + b"[" * 3000, b"recipe: digits\naxes: 3",
        b"recipe: digits\naxes: {seed: 3}", b"recipe: digits\naxes: {seed: []}", b"recipe: 7", OWN + b"nll: 5",
        OWN + b"extends: grid.yaml", b"recipe: digits\naxes: {seed: [.nan]}", b"recipe: digits\naxes: {seed: [1.0e20]}",
        b"recipe: digits\naxes: {seed: [-1]}", OWN + b"given: {data: '${given.data}'}", OWN + b"confidence: .nan",
        OWN + b"fid: {images: 1.0e20}", OWN + b"published: 3", OWN + b"variants: [3]", OWN + b"name: a/b",
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_grid_is_one_line(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_bytes(content)
    with pytest.raises(UserError) as error:
        Engine(read("grid.yaml"), Path("out"))
    assert "\n" not in str(error.value) and [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


@pytest.mark.parametrize("rest", [b"adjust: 3", b"adjust: [{set: {}}]", b"exclude: 3", b"published: [3]", b"only: 3"])
@pytest.mark.parametrize(
    "override", ["seed=3", "seed=[4,5]", "seed+=7", "seed=null", "seed=[]", "seed=[[1]]", "notes+=[{}]"]
)
def test_an_override_of_a_wrong_grid_is_one_line(rest: bytes, override: str, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_bytes(b"recipe: digits\naxes: {seed: [0, 1]}\n" + rest)
    with pytest.raises(UserError) as error:
        read(str(tmp_path / "grid.yaml"), [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", CUT, b"[]", b"{}", b"\x1f\x8b\x08", gzip.compress(CUT, mtime=0), b'{"rows": [3]}']
)
def test_a_damaged_result_is_one_line_with_its_name(content: bytes, tmp_path: Path) -> None:
    for name in ("result.json", "result.json.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} .*the result of an ablation") as error:
            AblationResult.load(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_damaged_folder_is_one_line_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_bytes(b"recipe: [")
    (tmp_path / "outline.json").write_bytes(CUT)
    assert read_outlines(tmp_path) is None
    with pytest.raises(UserError, match=r"grid.yaml does not hold the grid of an ablation"):
        stored(tmp_path)

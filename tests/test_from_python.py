"""docs/from-python.md and docs/quickstart.ipynb: their blocks run from top to bottom and do what the page says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from mar.networks import NETWORKS

PAGE = Path(__file__).parents[1] / "docs" / "from-python.md"


def test_every_block_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(PAGE.parents[1])
    names: dict = {"__name__": "from_python"}
    try:
        for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
            exec(compile(code, str(PAGE), "exec"), names)
    finally:
        NETWORKS.pop("MeanOfKnown", None)  # the page registers it
    for run in (names["run"], names["mine"]):
        shutil.rmtree(run.folder.path)
    assert names["samples"].shape == (4, 1, 8, 8) and names["scores"].nats_NL.shape == (8, 64)
    assert len(names["table"]) > 1 and "nll_nats_per_image" in names["table"]


def test_every_cell_of_the_quickstart_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads((PAGE.parent / "quickstart.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "iterations = 2000" in code[0]
    code[0] = code[0].replace("iterations = 2000", "iterations = 3")
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict = {"__name__": "quickstart"}
    for number, cell in enumerate(code):
        exec(compile(cell, f"quickstart.ipynb, code cell {number}", "exec"), names)
    shutil.rmtree(names["run"].folder.path)
    assert names["samples"].shape == (8, 1, 8, 8) and set(names["differences"]) == {"random", "subsample/cosine:16"}
    assert int(names["plan"].n_steps_B) == 16

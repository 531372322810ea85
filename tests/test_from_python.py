"""docs/from-python.md and the notebooks of docs: their blocks run from top to bottom and do what the page says."""

from __future__ import annotations

import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from mar.metrics import classifier
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


def executed(notebook: str, written: str, short: str, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Return the names that the cells define; ``short`` replaces ``written`` in the first one."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((PAGE.parent / notebook).read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert written in code[0]
    code[0] = code[0].replace(written, short)
    names: dict = {"__name__": "notebook"}
    for number, cell in enumerate(code):
        exec(compile(cell, f"{notebook}, code cell {number}", "exec"), names)
    shutil.rmtree(names["run"].folder.path)
    return names


def test_every_cell_of_the_quickstart_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    names = executed("quickstart.ipynb", "iterations = 2000", "iterations = 3", monkeypatch)
    assert names["samples"].shape == (8, 1, 8, 8) and set(names["differences"]) == {"random", "subsample/cosine:16"}
    assert int(names["plan"].n_steps_B) == 16


def test_every_cell_from_a_data_set_of_the_hub_to_fd_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr(classifier, "BUDGET", classifier.Budget(epochs=1, images=256))
    names = executed("hub-data.ipynb", "iterations = 1000", "iterations = 3", monkeypatch)
    assert names["run"].spec.shape == (3, 32, 32) and names["run"].spec.class_names == tuple("0123456789")
    assert {score.kind for score in names["scores"].values()} == {"exact"} and names["found"].fid > 0


def test_the_reference_names_the_objects_of_a_module_by_one_module():
    """A page of source code links back by the first name alone."""
    named: dict[str, set[str]] = {}
    for name in re.findall(r"auto(?:function|class):: (\S+)", PAGE.with_name("reference.md").read_text()):
        module, _, own = name.rpartition(".")
        named.setdefault(getattr(import_module(module), own).__module__, set()).add(module)
    assert named["mar.run"] == {"mar"} and not {home: by for home, by in named.items() if len(by) > 1}

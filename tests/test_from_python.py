"""docs/from-python.md: its blocks run from top to bottom and do what the page says."""

from __future__ import annotations

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

"""The page docs/adding-an-ordering.md works as written."""

from __future__ import annotations

import re
from pathlib import Path

import orderings
from orderings import ORDERINGS
from tests.orderings import cases

PAGE = Path(__file__).parents[2] / "docs" / "adding-an-ordering.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_example_runs_and_what_it_asserts_holds():
    scope = {"__name__": "rings"}
    code = [block for block in blocks() if not block.startswith("# ORDERINGS")]
    assert len(code) == 3
    try:
        for block in code:
            exec(compile(block, str(PAGE), "exec", dont_inherit=True), scope)
        rank_L = ORDERINGS["rings"]().ranks(orderings.Grid((3, 4, 2)), 1, cases.noise(1))[0]
        assert sorted(rank_L.tolist()) == list(range(24))
    finally:
        ORDERINGS.pop("rings", None)


def test_the_registry_line_it_shows_looks_like_the_ones_there():
    source = (PAGE.parents[1] / "orderings" / "registry.py").read_text()
    line = next(block for block in blocks() if block.startswith("# ORDERINGS")).splitlines()[1]
    assert re.sub(r"rings|Rings", "", line) in re.sub(r"raster|Raster|scans", "", source)

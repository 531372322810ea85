"""docs/published-models.md names every recipe of ImageNet, and figures that the recipes carry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mar.config import recipe_names, recipe_path

PAGE = (Path(__file__).parents[2] / "docs" / "published-models.md").read_text()


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("imagenet256-")])
def test_the_row_of_a_recipe_has_the_figures_of_its_header(name):
    row = next(
        line for line in PAGE.splitlines() if line.startswith(f"| `{name.removeprefix('imagenet256-table1-')}` |")
    )
    header = "".join(line for line in recipe_path(name).read_text().splitlines() if line.startswith("#"))
    figures = re.findall(r"\d+\.\d\d / \d+\.\d", row)
    assert len(figures) == 2 and all(figure in header for figure in figures)

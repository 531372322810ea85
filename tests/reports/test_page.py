"""The page stands alone, says the table's numbers, and runs in a browser where there is one."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from mar.experiments.result import AblationResult
from mar.reports.page import grid_rows, page
from mar.reports.tables import grid_table
from tests.experiments.made import changed

_VOID = {"meta", "link", "img", "br", "wbr", "input", "hr", "source"}


class Tags(HTMLParser):
    """Every element with its attributes; checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"


def test_the_page_needs_no_network(result: AblationResult, folder: Path) -> None:
    text = page(result, folder)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#)", text)
    for _, attributes in Tags(text).found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_pictures_are_inside(result: AblationResult, folder: Path) -> None:
    images = [a["src"] or "" for tag, a in Tags(page(result, folder)).found if tag == "img"]
    assert len(images) == 4  # maps are drawings
    assert base64.b64decode(images[0].split(",")[1]) == (folder / "animation.gif").read_bytes()
    assert base64.b64decode(images[1].split(",")[1]) == (folder / "samples.png").read_bytes()


def test_cells_hold_the_numbers_they_sort_by(result: AblationResult, folder: Path) -> None:
    values = [a["data-value"] for tag, a in Tags(page(result, folder)).found if tag == "td" and "data-value" in a]
    rows = (*result.rows, *result.baselines)
    expected = [column.value(row) for row in rows for column in grid_table(result).columns]
    assert values == ["" if value is None else str(value) for value in expected]


def test_text_from_outside_is_escaped(result: AblationResult, folder: Path) -> None:
    text = page(result, folder)
    assert "<up>" not in text and "<script>a|b" not in text
    assert "made &lt;up&gt;" in text and "mar ablate x &#x27;a=[b]&#x27; &lt;&amp;&gt;" in text


def test_every_plan_has_its_maps_and_curve(result: AblationResult, folder: Path) -> None:
    labels = [a.get("aria-label") for tag, a in Tags(page(result, folder)).found if tag == "svg"]
    for plan in ("raster", "random/linear:2"):
        for what in ("Rank map", "Step map", "NLL by position"):
            assert f"{what}, {plan}" in labels
    for ordering in ("raster", "random"):
        assert f"NLL per step, {ordering}" in labels
    assert "Training curves" in labels


def test_an_ablation_without_images_or_differences_has_a_page(result: AblationResult, folder: Path) -> None:
    rows = tuple(changed(r, images=None, difference=None) for r in result.rows[:1])
    text = page(replace(result, rows=rows, grid={"nll": {"split": "test"}, "fid": None}), folder)
    assert "FID" not in text and 'id="differences"' not in text
    Tags(text)


def test_steps_that_no_image_drew_are_left_out(result: AblationResult, folder: Path) -> None:
    """Of an estimate from few images, what was not drawn is not a number."""
    first, *others = result.rows
    assert first.likelihood is not None
    steps, positions = (list(values) for values in (first.likelihood.nats_per_step, first.likelihood.nats_per_position))
    steps[0] = positions[0] = math.nan
    estimate = replace(first.likelihood, nats_per_step=tuple(steps), nats_per_position=tuple(positions))
    for row in (changed(first, likelihood=estimate), changed(first, likelihood=replace(estimate, nats_per_step=()))):
        text = page(replace(result, rows=(row, *others)), folder)
        assert "NLL by position" in text and not re.search(r'(points|d|x|y|cx|cy)="[^"]*nan', text)


def test_a_map_has_a_value_for_each_cell_and_its_path_breaks_at_jumps(result: AblationResult, folder: Path) -> None:
    text = page(result, folder)
    assert 'data-values="0 1 2;3 4 5"' in text and 'data-what="rank {}"' in text
    assert 'd="M5 5L15 5L25 5M5 15L15 15L25 15"' in text  # the jump back to the next row is not drawn
    assert grid_rows(range(12), (2, 3, 2)) == [[0.5, 2.5, 4.5], [6.5, 8.5, 10.5]]
    assert [len(row) for row in grid_rows(range(40), (40,))] == [32, 8]


def test_the_page_draws_the_curve_of_every_trained_model(several: AblationResult, folder: Path) -> None:
    text = page(several, folder)
    drawn = re.search(r'<svg[^>]*aria-label="Training curves".*?</svg>', text, re.DOTALL)
    assert drawn is not None and "raster (overfits)" in drawn.group() and "random (falling)" in drawn.group()
    assert ">lstm</text>" in drawn.group() and ">row</text>" not in drawn.group()
    assert "refused: rows serve raster order" in text


def test_a_picture_that_is_missing_is_left_out(result: AblationResult, folder: Path) -> None:
    (folder / "samples.png").unlink()
    assert page(result, folder).count("<img") == 2

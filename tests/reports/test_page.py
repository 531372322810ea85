"""The page stands alone, says the table's numbers, and runs in a browser where there is one."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mar.experiments.result import AblationResult
from mar.reports.columns import columns
from mar.reports.page import page
from mar.reports.svg import Chart, Line, heat_map, log_ticks, rows_of, ticks
from tests.experiments.made import changed

_VOID = {"meta", "link", "img", "br", "wbr", "input", "hr"}


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
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text)
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
    expected = [column.value(row) for row in rows for column in columns(result)]
    assert values == ["" if value is None else str(value) for value in expected]


def test_text_from_outside_is_escaped(result: AblationResult, folder: Path) -> None:
    text = page(result, folder)
    assert "<up>" not in text and "<script>a|b" not in text
    assert "made &lt;up&gt;" in text and "mar ablate x &#x27;a=[b]&#x27; &lt;&amp;&gt;" in text


def test_every_plan_has_its_maps_and_curve(result: AblationResult, folder: Path) -> None:
    labels = [a.get("aria-label") for tag, a in Tags(page(result, folder)).found if tag == "svg"]
    for plan in ("raster", "random/linear:2"):
        for what in ("Rank map", "Step map", "NLL by position", "NLL per step"):
            assert f"{what}, {plan}" in labels
    assert "Training curve" in labels


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


def test_a_heat_map_has_a_pixel_and_a_value_for_each_cell() -> None:
    drawn = heat_map(rows_of(range(6), (2, 3)), "m", 0, 5, "rank {}", path=True)
    picture = re.search(r"base64,([^\"]+)", drawn)
    assert picture is not None and 'data-values="0 1 2;3 4 5"' in drawn
    image = Image.open(io.BytesIO(base64.b64decode(picture.group(1))))
    assert image.size == (3, 2) and image.getpixel((0, 0)) == (68, 1, 84, 255)  # viridis, from its first colour
    assert image.getpixel((2, 1)) == (253, 231, 37, 255)  # to its last
    assert 'd="M5 5L15 5L25 5M5 15L15 15L25 15"' in drawn  # the jump back to the next row is not drawn
    assert rows_of(range(12), (2, 3, 2)) == [[0.5, 2.5, 4.5], [6.5, 8.5, 10.5]]
    assert [len(row) for row in rows_of(range(40), (40,))] == [32, 8]


def test_a_chart_puts_points_where_they_belong() -> None:
    chart = Chart("x", "y", (0, 10), (0, 1), width=142, height=138)  # an area of 100 x 100 at (34, 8)
    assert 'points="34.0,108.0 84.0,58.0 134.0,8.0"' in chart.svg([Line((0, 5, 10), (0, 0.5, 1), "own", "l")], "c")
    log = replace(chart, x_range=(1, 100), log_x=True)
    assert log.place(10, 0.5) == (84.0, 58.0) and log_ticks(1, 100) == [1, 2, 5, 10, 20, 50, 100]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 64, [0, 20, 40, 60]), (0.1, 0.5, [0.1, 0.2, 0.3, 0.4, 0.5]), (2, 2, [2])]
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected

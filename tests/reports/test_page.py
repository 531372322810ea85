"""The page stands alone, says the table's numbers, and runs in a browser where there is one."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from mar.experiments.result import AblationResult
from mar.reports.page import grid_rows, headline, page, webp
from mar.reports.tables import data_table, latex
from tests.experiments.made import changed
from tests.reports.conftest import difference

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
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\((?!#|data:)", text)
    for _, attributes in Tags(text).found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def pixels(source: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"))


def test_pictures_are_inside_and_films_are_strips_of_frames(result: AblationResult, folder: Path) -> None:
    found = Tags(page(result, folder)).found
    samples = [a["src"] or "" for tag, a in found if tag == "img" and (a["alt"] or "").startswith("samples")]
    assert len(samples) == 2 and pixels(samples[0]).tolist() == np.zeros((8, 16, 3)).tolist()
    films = [a for _, a in found if a.get("class") == "film"]
    assert len(films) == 3  # one plan of single tokens at the head, two cards
    source = re.search(r"url\((.*)\)", films[0]["style"] or "")
    assert source is not None and "--frames:2;" in (films[0]["style"] or "")
    assert pixels(source[1])[0, :, 0].tolist() == [0] * 16 + [200] * 16  # without loss


def test_a_film_over_the_limit_keeps_its_last_frame() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (9, 8, 8, 3)).astype(np.uint8)
    source, count = webp([Image.fromarray(frame) for frame in noise], limit=1_000)
    strip = pixels(source)
    assert count < 9 and strip.shape == (8, 8 * count, 3)
    assert (strip[:, :8] == noise[0]).all() and (strip[:, -8:] == noise[-1]).all()


def test_cells_hold_the_numbers_they_sort_by(result: AblationResult, folder: Path) -> None:
    text = page(result, folder)
    head = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<th .*?</th>", text)]
    lines = [re.findall(r'data-value="(.*?)"', line) for line in re.findall(r'<tr id="row-.*?</tr>', text)]
    nll, chips = (next(k for k, name in enumerate(head) if name.startswith(of)) for of in ("NLL", "against raster"))
    assert [line[nll] for line in lines] == [
        "" if row.likelihood is None else str(row.likelihood.bits_per_dim) for row in result.rows
    ]
    assert [line[chips] for line in lines] == ["0.0", str(result.rows[1].difference.bits_per_dim), ""]  # type: ignore[union-attr]
    assert '<span class="chip">reference</span>' in text and '<span class="chip better">−0.030 better</span>' in text


def test_sets_have_a_price_and_a_difference_that_is_not_significant_says_so(
    result: AblationResult, folder: Path
) -> None:
    raster, random, _ = result.rows
    near = replace(random, ordering="raster", difference=replace(difference(0.05), p_holm=0.2))
    text = page(replace(result, rows=(raster, near)), folder)
    assert '<span class="chip n.s.">+0.012 n.s.</span>' in text and "<em>n.s.</em>: not significant" in text
    assert re.search(r'data-value="-0.03[\d]*">-0.030</td>', text)  # 7.125 - 7.25 nats of six tokens
    assert "<b>Bold</b>" in text and "A reason" not in text  # the marks that there are
    far = replace(near, difference=None, unsound="worse than <a> baseline", settings={"k": "far"})
    rows = (replace(raster, settings={"k": "raster"}), replace(near, settings={"k": "near"}), far)
    assert '<span class="reason">worse than &lt;a&gt; baseline</span>' in (
        text := page(replace(result, rows=rows), folder)
    )
    assert text.index("A reason") < text.index('<table class="sortable">')


def test_means_over_seeds_come_first_and_stand_for_their_trainings(ablation: AblationResult, folder: Path) -> None:
    text = page(ablation, folder)
    main, raw = re.findall(r'<table class="sortable">.*?</table>', text)
    assert main.count("<tr id=") == 3 and 'data-rows="0 1 2"' in main and raw.count("<tr data-rows=") == 9
    assert text.index("<details><summary>Each training by itself") > text.index(main[:40])
    assert text.count('class="plan"') == 3 and "3 training seeds" in text


def test_the_head_is_the_question_of_the_grid_or_of_the_shipped_grid(result: AblationResult, folder: Path) -> None:
    asked = replace(result, grid={**result.grid, "title": "Orders", "question": "Which order?"})
    assert "<h1>Which order?</h1>" in page(asked, folder) and "<title>Orders</title>" in page(asked, folder)
    shipped = replace(result, name="digits", environment={**result.environment, "command": "mar ablate digits"})
    assert headline(shipped) == ("Nine orders of 8×8 digits", "Which order should one model of 8×8 digits generate in?")
    own = replace(shipped, environment={**result.environment, "command": "mar ablate digits.yaml"})
    assert headline(own) == ("digits", "digits")


def test_the_table_can_be_saved_as_csv_json_and_latex(result: AblationResult, folder: Path) -> None:
    links = {a["download"]: a["href"] or "" for tag, a in Tags(page(result, folder)).found if a.get("download")}
    saved = {name: base64.b64decode(uri.split(",")[1]).decode() for name, uri in links.items()}
    assert saved == {
        "made <up>.csv": data_table(result).csv(), "made <up>.json": data_table(result).json(),
        "made <up>.tex": latex(result),
    }  # fmt: skip


def test_text_from_outside_is_escaped(result: AblationResult, folder: Path) -> None:
    text = page(result, folder)
    assert "<up>" not in text and "<script>a|b" not in text
    assert "made &lt;up&gt;" in text and "mar ablate x &#x27;a=[b]&#x27; &lt;&amp;&gt;" in text


def test_every_plan_has_its_maps_and_curve(result: AblationResult, folder: Path) -> None:
    labels = [a.get("aria-label") for tag, a in Tags(page(result, folder)).found if tag == "svg"]
    for plan, names in {"raster": ["Step map"], "random/linear:2": ["Rank map", "Step map"]}.items():
        assert all(f"{what}, {plan}" in labels for what in (*names, "NLL by position"))
    assert "Rank map, raster" not in labels  # one token a step: both maps are the same
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
    assert 'data-values="0 1 2;3 4 5"' in text and 'data-what="step {}"' in text
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
    assert page(result, folder).count('alt="samples') == 0

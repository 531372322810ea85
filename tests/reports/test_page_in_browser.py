"""The page in a headless Chromium: no errors, no requests, it sorts, filters, remembers, and fits a narrow screen.

The page is shown in frames of the wanted widths, which the script beside them presses, types in and measures. The
browser is ``MAR_BROWSER``, or a Chromium on the path; without one the tests are skipped. The tests of print, motion,
keys and pages without scripts also need playwright (the extra ``browser``), which drives the same browser.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mar.experiments.result import AblationResult
from mar.reports.page import write_page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_BROWSER = os.environ.get("MAR_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
pytestmark = pytest.mark.skipif(_BROWSER is None, reason="no Chromium on the path; MAR_BROWSER may name one")

_FRAMES = """<!doctype html><title>not run</title>
<iframe id="wide" src="index.html" width="1280" height="900"></iframe>
<iframe id="narrow" src="index.html" width="390" height="844"></iframe>
<iframe id="linked" src="index.html#?ordering=random&descending=NLL%2C+bits%2Fdim" width="1280" height="900"></iframe>
<script>
const page = (id) => document.getElementById(id).contentDocument;
const shown = (id) => [...page(id).querySelectorAll(".sortable tbody tr:not([hidden])")]
  .map((row) => [...row.querySelectorAll(".words")].map((cell) => cell.textContent).slice(0, 2).join(" "));
const head = (title) => [...page("wide").querySelectorAll(".sortable th")]
  .find((each) => each.textContent.startsWith(title));
const press = (title) => head(title).querySelector("button").click();
const rest = () => new Promise((done) => setTimeout(done, 20));
async function choose(name, value) {
  const field = page("wide").querySelector(".filters").elements[name];
  field.value = value;
  field.dispatchEvent(new Event("input", {bubbles: true}));
  await rest();
  return {
    rows: shown("wide"), said: page("wide").querySelector(".filters output").textContent,
    address: page("wide").defaultView.location.hash,
    cards: [...page("wide").querySelectorAll(".plan")].filter((plan) => plan.checkVisibility()).length,
    marks: [...page("wide").querySelectorAll(".point")].filter((mark) => mark.checkVisibility()).length,
    message: page("wide").querySelector(".none").checkVisibility(),
  };
}
onload = async () => {
  const seen = {};
  try { await look(seen); } catch (error) { seen.error = String(error); }
  document.title = JSON.stringify(seen);
};
async function look(seen) {
SCRIPT
  seen.requests = ["wide", "narrow", "linked"]
    .flatMap((id) => page(id).defaultView.performance.getEntriesByType("resource").map((entry) => entry.name));
  const narrow = page("narrow").documentElement;
  seen.overflow = Math.max(narrow.scrollWidth, page("narrow").body.scrollWidth) - narrow.clientWidth;
  seen.clientWidth = narrow.clientWidth;
}
</script>
"""


def look(folder: Path, script: str) -> tuple[dict[str, Any], str]:
    """What the script saw in the folder's page, and what the browser wrote to its console."""
    (folder / "frames.html").write_text(_FRAMES.replace("SCRIPT", script))
    done = subprocess.run(
        [str(_BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--allow-file-access-from-files", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
         "--virtual-time-budget=5000", "--dump-dom", (folder / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None and title.group(1) != "not run", done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(title.group(1))), "\n".join(console)


def test_it_sorts_without_errors_or_requests_and_fits_a_narrow_screen(result: AblationResult, folder: Path) -> None:
    write_page(result, folder, folder / "index.html")
    seen, console = look(
        folder,
        """
        seen.orders = [shown("wide")];
        for (const title of ["NLL", "NLL", "FID", "ordering"]) { press(title); seen.orders.push(shown("wide")); }
        seen.sorted = head("ordering").getAttribute("aria-sort");
        """,
    )
    assert console == "" and "error" not in seen and seen["requests"] == []
    assert [[row.split()[0] for row in rows] for rows in seen["orders"]] == [
        ["raster", "random", "spiral"],  # as in the grid
        ["random", "raster", "spiral"],  # best NLL first, the failed plan last
        ["raster", "random", "spiral"],  # the other way round, the failed plan still last
        ["raster", "random", "spiral"],  # best FID first
        ["random", "raster", "spiral"],  # by name
    ]
    assert seen["sorted"] == "ascending"
    assert 350 < seen["clientWidth"] <= 390 and seen["overflow"] == 0


def test_it_filters_counts_and_remembers(several: AblationResult, folder: Path) -> None:
    write_page(several, folder, folder / "index.html")
    seen, console = look(
        folder,
        """
        seen.network = await choose("network", "lstm");
        seen.both = await choose("find", "RANDOM falling");
        press("NLL");
        seen.none = await choose("find", "nothing like it");
        page("wide").querySelector(".filters button[type=reset]").click();
        await rest();
        seen.all = shown("wide");
        seen.linked = shown("linked");
        """,
    )
    assert console == "" and "error" not in seen and seen["requests"] == [] and seen["overflow"] == 0
    assert seen["network"]["rows"] == ["lstm raster", "lstm random"] and seen["network"]["cards"] == 2
    assert seen["network"]["said"] == "2 of 3 rows" and seen["network"]["address"] == "#?network=lstm"
    assert seen["network"]["marks"] > 0 and not seen["network"]["message"]
    assert seen["both"]["rows"] == ["lstm random"] and seen["both"]["said"] == "1 of 3 rows"
    assert seen["both"]["address"] == "#?find=RANDOM+falling&network=lstm"
    assert seen["none"]["marks"] == 0 and seen["none"]["message"]
    assert seen["none"]["rows"] == [] and seen["none"]["cards"] == 0 and "ascending=NLL" in seen["none"]["address"]
    assert len(seen["all"]) == 3 and seen["linked"] == ["lstm random", "row random"]


def test_the_check_sees_an_error_and_a_request(result: AblationResult, folder: Path) -> None:
    path = write_page(result, folder, folder / "index.html")
    planted = (
        '<img src="https://example.invalid/x.png"><div style="width: 500px">wide</div><script>undefined.x</script>'
    )
    path.write_text(path.read_text().replace("</body>", f"{planted}</body>"))
    seen, console = look(folder, "")
    assert "example.invalid" in console and "TypeError" in console and seen["overflow"] > 100


@pytest.fixture
def driven(ablation: AblationResult, result: AblationResult, folder: Path) -> Iterator[Callable[..., Any]]:
    """Open the page of several seeds, or of one with films, in a browser with the given settings."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: extra browser")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_BROWSER, args=["--no-sandbox", "--disable-gpu"])

        def opened(of: str, **settings: Any) -> Any:
            write_page({"films": result, "seeds": ablation}[of], folder, folder / "index.html")
            tab = browser.new_context(**settings).new_page()
            tab.goto((folder / "index.html").as_uri(), timeout=120_000)
            return tab

        yield opened
        browser.close()


def test_animations_pause_by_keyboard_without_scripts_and_stand_still_if_less_motion_is_asked(
    driven: Callable[..., Any],
) -> None:
    state = "() => getComputedStyle(document.querySelector('.film'))"
    tab = driven("films", java_script_enabled=True)
    assert tab.evaluate(f"({state})().animationName") == "film"
    tab.focus("#pause")
    tab.keyboard.press("Space")
    assert tab.evaluate(f"({state})().animationPlayState") == "paused"
    tab = driven("films", reduced_motion="reduce")
    assert tab.evaluate(f"({state})().animationName") == "none" and not tab.locator("#pause").is_visible()
    assert tab.evaluate(f"({state})().backgroundPositionX") == "100%"  # of two frames the second
    tab = driven("films", java_script_enabled=False)
    tab.locator("#pause").check()
    assert tab.locator("th button, .filters, .copy").count() == 0  # nothing looks pressed that cannot be
    tab.locator(".folded input").check()
    assert tab.locator("#table th.more").first.is_visible()


def test_a_print_shows_every_column_and_card_on_the_width_of_the_paper(driven: Callable[..., Any]) -> None:
    for of in ("films", "seeds"):
        tab = driven(of, viewport={"width": 1047, "height": 700})  # A4, landscape, less the margins
        tab.emulate_media(media="print")
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.evaluate("[...document.querySelectorAll('details')].every((each) => each.open)")
        shown = "[...document.querySelectorAll('main :is(th, td), .plan')].every((each) => each.checkVisibility())"
        assert tab.evaluate(shown) and not tab.locator(".filters, .folded").first.is_visible()
        assert tab.evaluate("Math.max(...[...document.querySelectorAll('table')].map((t) => t.scrollWidth))") <= 1047
        assert len(tab.pdf(prefer_css_page_size=True)) > 10_000
        tab.evaluate("dispatchEvent(new Event('afterprint'))")
        assert tab.evaluate("[...document.querySelectorAll('details.notes')].every((each) => !each.open)")


def test_keys_sort_walk_a_map_and_reach_a_card_and_the_address_keeps_all(driven: Callable[..., Any]) -> None:
    tab = driven("films")
    tab.locator("#table th button", has_text="NLL").focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#table th[aria-sort=ascending]").count() == 1
    tab.locator(".map").first.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".map-figure figcaption").first.text_content() == "step 1 at 0, 1"
    tab.locator("tr#row-1 a").focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate("location.hash").startswith("#card-1?ascending=NLL")
    tab.reload()
    assert tab.locator("#table th[aria-sort=ascending]").count() == 1 and tab.locator("#card-1").is_visible()


def test_means_over_seeds_sort_and_filter_with_their_trainings(driven: Callable[..., Any]) -> None:
    tab = driven("seeds")
    assert tab.locator("tr[id^=row-]:visible").count() == 3
    tab.fill("[name=find]", "spiral")
    assert tab.locator("tr[id^=row-]:visible").count() == 1 and tab.locator(".plan:visible").count() == 1
    tab.locator("#table summary").first.click()
    assert tab.locator("#table details tbody tr:visible").count() == 3  # its seeds

"""The page in a headless Chromium: no errors, no requests, it sorts, filters, remembers, and fits a narrow screen.

The page is shown in frames of the wanted widths, which the script beside them presses, types in and measures. The
browser is ``MAR_BROWSER``, or a Chromium on the path; without one the tests are skipped.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
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
    assert seen["network"] == {
        "rows": ["lstm raster", "lstm random"], "said": "2 of 3 rows", "address": "#?network=lstm", "cards": 2,
    }  # fmt: skip
    assert seen["both"]["rows"] == ["lstm random"] and seen["both"]["said"] == "1 of 3 rows"
    assert seen["both"]["address"] == "#?find=RANDOM+falling&network=lstm"
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

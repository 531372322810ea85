"""The page in a browser: live steps, stale results, keys, links, errors beside their field."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'mar-orderings[demo]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium: install it, or set CHROMIUM to its path", allow_module_level=True)
pytestmark = pytest.mark.slow
FILM = "document.querySelector('#player')"


@pytest.fixture(scope="module")
def address(session: Any) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mar", "demo", str(session.run.folder.path), "--port", str(port)]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(address: str, browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(60_000)
    page.goto(address)
    page.wait_for_selector("#player .film:not([hidden])")  # the finished example
    yield page
    page.close()


def step(page: Any) -> int:
    return int(page.locator("#player .nll").first.inner_text().split()[1])


def test_the_page_opens_with_an_example_and_nothing_is_wider_than_a_phone(page):
    page.wait_for_function("document.querySelector('#player .nll').textContent.startsWith('step 64 of 64')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_tokens_appear_one_step_after_the_other(page):
    page.get_by_role("button", name="Next seed").click()
    page.wait_for_function("/step ([1-9]|[1-5][0-9]) of 64/.test(document.querySelector('#player .nll').textContent)")
    first = step(page)
    page.wait_for_function("document.querySelector('#player .nll').textContent.startsWith('step 64')")
    assert 0 < first < 64


def test_a_result_is_marked_stale_when_the_settings_change(page):
    page.wait_for_function("document.querySelector('#player .nll').textContent.startsWith('step 64')")
    assert page.locator("#player .stale").is_hidden()
    page.get_by_label("Seed").fill("7")
    page.keyboard.press("Tab")
    page.wait_for_selector("#player .stale:not([hidden])")
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("#player .stale", state="hidden")


def test_an_order_is_painted_with_the_keyboard(page):
    page.locator("#board canvas").focus()
    for key in ("ArrowRight", "ArrowDown", "Space", "ArrowRight", "Space"):
        page.keyboard.press(key)
    page.wait_for_function("document.querySelector('#board .said').textContent == 'row 2, column 3: painted 2'")
    page.wait_for_function("document.querySelector('#board .link').href.includes('painted=9.10')")
    assert "plan=painted" in page.locator("#board .link").get_attribute("href")


def test_a_link_restores_plan_cells_and_seed(page, address):
    page.goto(f"{address}?plan=painted/cosine:16&painted=9.10&seed=4&class=3")
    page.wait_for_selector("#board .link[href*='painted=9.10']")
    page.wait_for_selector("#player .nll >> text=step 16 of 16")
    page.wait_for_timeout(1500)  # the answers to the changed controls
    assert "painted=9.10" in page.locator("#board .link").get_attribute("href")
    assert page.locator("#player .stale").is_hidden()
    assert page.get_by_label("Seed").input_value() == "4"
    assert page.locator("#player .plan").inner_text() == "painted/cosine:16"


def test_an_error_stands_beside_its_field(page):
    page.get_by_label("Seed").fill("-5")
    page.keyboard.press("Tab")
    page.wait_for_selector("#message-seed [role=alert]")
    assert "the seed is a whole number from 0" in page.locator("#message-seed").inner_text()
    below = page.locator("#message-seed").bounding_box()["y"] - page.get_by_label("Seed").bounding_box()["y"]
    assert 0 < below < 150


def test_two_orders_race_on_one_axis(page):
    page.get_by_role("button", name="Race", exact=True).click()
    page.wait_for_function("document.querySelectorAll('#player .boards canvas').length == 2")
    page.wait_for_function("document.querySelectorAll('#player svg polyline').length == 4")

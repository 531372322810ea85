"""The page itself, and the command that serves it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mar import config
from mar.core.errors import UserError
from mar.demo.session import Session
from mar.run import load, train
from tests.demo.conftest import QUIET

NEEDS_GRADIO = "gradio is not installed: pip install 'mar-orderings[demo]'"


def test_help_needs_no_gradio():
    code = (
        "import sys; sys.argv = ['mar', 'demo', '--help']\n"
        "import mar.cli.main\n"
        "try: mar.cli.main.app()\n"
        "except SystemExit: print({'torch', 'gradio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n") and "--no-browser" in done.stdout


def test_without_gradio_the_command_says_what_to_install(session, monkeypatch):
    from mar.cli.demo import demo

    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "mar.demo.page", raising=False)
    with pytest.raises(UserError, match=r"mar demo needs gradio: pip install 'mar-orderings\[demo\]'"):
        demo(session.run.folder.path)


def test_a_run_of_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("to be or not to be, that is the question. " * 40)
    small = ["network.width=16", "network.depth=1", "network.heads=2", "data.context=8", f"data.path={tmp_path}"]
    quiet = [option for option in QUIET if option.startswith("train.")]
    train(config.read("shakespeare", [*quiet, *small]), tmp_path / "run")
    with pytest.raises(UserError, match=r"mar demo shows images: .* makes examples of kind text"):
        Session(load(tmp_path / "run"), tmp_path)


def test_the_presets_are_those_that_serve_the_grid_as_they_are(session):
    presets = session.presets()
    assert {"random", "painted", "spiral", "random/cosine:16", "lowest-entropy"} <= set(presets)
    assert not {"file", "learned", "confidence"} & set(presets)


def test_the_page_builds_and_its_answers_are_messages_not_tracebacks(session):
    pytest.importorskip("gradio", reason=NEEDS_GRADIO)
    from mar.demo.page import _FIELDS, _Answers, page

    answers = _Answers(session)
    assert len(page(answers).fns) >= 12
    empty = {"painted": [], "given": [], "drawn": [], "tool": "order"}
    good, bad, wrong = (
        [plan, 0, 1.0, 1.0, seed, empty, None] for plan, seed in (("raster", 0), ("spirl", 0), ("raster", -5))
    )
    asked = {
        ("plan", "did you mean &#x27;spiral&#x27;"): [*answers.generate(*bad)][-1],
        ("seed", "the seed is a whole number from 0"): answers.preview(*wrong),
        ("rival", "unknown ordering"): [*answers.race("sprl", *good)][-1],
        ("picture", "there is no 99999"): answers.pick(99999, *good),
        ("picture", "cannot read the picture"): answers.upload(__file__, *good),
        ("picture", "not empty"): answers.pick(None, *good),
    }
    for (field, said), outputs in asked.items():
        messages = dict(zip(_FIELDS, outputs[-len(_FIELDS) :], strict=True))
        assert said in messages.pop(field).value, field
        assert all(getattr(other, "value", None) is None for other in messages.values())  # left as they are


def test_a_generation_is_streamed_and_its_film_can_be_saved(session):
    pytest.importorskip("gradio", reason=NEEDS_GRADIO)
    from mar.demo.page import _Answers

    controls = ["raster/equal:8", 3, 1.0, 1.0, 0, {"painted": [], "given": [], "drawn": []}, None]
    *_, (player, gif, png, *_) = _Answers(session).generate(*controls)
    assert player.value["films"][0]["done"] and "plan=raster/equal:8&class=3" in player.value["key"]
    assert gif.value["path"].endswith(".gif") and Path(png.value["path"]).is_file()


def test_the_order_is_scored_beside_raster_and_random(session, monkeypatch):
    pytest.importorskip("gradio", reason=NEEDS_GRADIO)
    from mar.demo.page import _Answers

    monkeypatch.setattr(session, "standings", lambda request: Session.standings(session, request, images=3))
    board = {"painted": [9], "given": [], "drawn": []}
    *_, (shown, *_) = _Answers(session).beat("painted/equal:8", 0, 1.0, 1.0, 0, board, None)
    assert "<b>painted/equal:8</b>" in shown and "of 3." in shown


def test_painting_makes_the_plan_a_painted_one_of_the_same_partition(session):
    pytest.importorskip("gradio", reason=NEEDS_GRADIO)
    from mar.demo.page import _Answers

    board = {"painted": [9], "given": [], "drawn": [], "tool": "order"}
    plan, scene, _, order, *_ = _Answers(session).painted("spiral/linear:8", 0, 1.0, 1.0, 0, board, None)
    assert plan == "painted/linear:8" and scene.props["scene"]["step"][9] == 0
    assert order.visible and order.value
    plan, *_ = _Answers(session).painted("spiral", 0, 1.0, 1.0, 0, {**board, "tool": "give"}, None)
    assert plan == "spiral"

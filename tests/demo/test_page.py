"""The page itself, and the command that serves it."""

from __future__ import annotations

import subprocess
import sys

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
    from mar.demo.page import _Answers, page

    assert len(page(session).fns) >= 7
    empty = {"painted": [], "given": [], "drawn": [], "tool": "order"}
    controls = ["spirl", 0, 1.0, 1.0, 0, empty, None]
    _, message = _Answers(session).generate(*controls)
    assert "did you mean &#x27;spiral&#x27;" in message.value
    *_, message = _Answers(session).upload(__file__, *controls)
    assert "cannot read the picture" in message.value


def test_painting_makes_the_plan_a_painted_one_of_the_same_partition(session):
    pytest.importorskip("gradio", reason=NEEDS_GRADIO)
    from mar.demo.page import _Answers

    board = {"painted": [9], "given": [], "drawn": [], "tool": "order"}
    plan, scene, order, _ = _Answers(session).painted("spiral/linear:8", 0, 1.0, 1.0, 0, board, None)
    assert plan == "painted/linear:8" and scene.props["scene"]["step"][9] == 0
    assert order.visible and order.value
    plan, *_ = _Answers(session).painted("spiral", 0, 1.0, 1.0, 0, {**board, "tool": "give"}, None)
    assert plan == "spiral"

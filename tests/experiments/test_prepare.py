"""What the recipes of a grid read is made first, once, by commands whose failure is one line."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mar.core.errors import Stopped, UserError
from mar.experiments import launch as module
from mar.experiments.grid import GridFile, read
from mar.experiments.launch import pending, preparation_seconds, prepare

GRID = """
given: {data: some}
prepare: ["make ${given.data} --out ${given.out}/made", "use ${given.out}/made 'in one word'"]
recipe: digits
overrides: ["tokenizer.path=${given.out}/made"]
axes: {seed: [0, 1]}
"""
FAKE = "import sys, pathlib; a = sys.argv[1:]; '--out' in a and pathlib.Path(a[a.index('--out') + 1]).mkdir(); print(a)"


def grid_in(folder: Path, text: str = GRID, *overrides: str) -> GridFile:
    (folder / "grid.yaml").write_text(text.replace('"tokenizer.path=${given.out}/made"', ""))
    return read(str(folder / "grid.yaml"), overrides, folder / "out")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that make a folder and say their arguments."""
    monkeypatch.setattr(module, "PROGRAM", (*module.PROGRAM[:1], "-c", FAKE))


def test_the_folder_of_a_grid_is_given_where_it_is_asked_for(tmp_path: Path) -> None:
    assert grid_in(tmp_path).prepare[0] == f"make some --out {tmp_path}/out/made"
    (tmp_path / "own.yaml").write_text("recipe: digits\nname: mine\nprepare: ['use ${given.out}']\naxes: {seed: [0]}")
    assert read(str(tmp_path / "own.yaml")).prepare == ("use runs/ablate-mine",)
    assert read("digits", (), tmp_path).given == {}


def test_every_command_runs_once_and_in_order(tmp_path: Path, fake: None, capfd: pytest.CaptureFixture[str]) -> None:
    grid, out, said = grid_in(tmp_path), tmp_path / "out", []
    assert pending(grid, out) == list(grid.prepare) and preparation_seconds(grid, out) == 0.0 and not out.exists()
    prepare(grid, out, said.append)
    prepare(grid, out, said.append)
    assert said == [f"mar {command}" for command in grid.prepare]
    assert capfd.readouterr().out.splitlines()[-1] == str(["use", f"{out}/made", "in one word"])
    assert pending(grid, out) == [] and preparation_seconds(grid, out) > 0.0


def test_what_was_lost_is_made_again_and_so_is_what_is_asked_otherwise(tmp_path: Path, fake: None) -> None:
    grid, out = grid_in(tmp_path), tmp_path / "out"
    prepare(grid, out, lambda said: None)
    other = grid_in(tmp_path, GRID, "given.data=other")
    assert other.prepare[0] == f"make other --out {out}/made" and pending(other, out) == list(other.prepare)
    (out / "made").rmdir()
    assert pending(grid, out) == list(grid.prepare)  # what follows may read what is made anew


def test_a_stop_between_two_that_are_made_again_forgets_neither(tmp_path: Path, fake: None) -> None:
    grid, out = grid_in(tmp_path), tmp_path / "out"
    prepare(grid, out, lambda said: None)
    (out / "made").rmdir()

    def stop(said: str) -> None:
        if said.startswith("mar use"):
            raise Stopped(signal.SIGTERM)

    with pytest.raises(Stopped):
        prepare(grid, out, stop)
    assert pending(grid, out) == [grid.prepare[1]]


def test_a_failure_is_one_line_and_nothing_after_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PROGRAM", (*module.PROGRAM[:1], "-c", "import sys; print('why'); sys.exit(2)"))
    grid, said = grid_in(tmp_path), []
    with pytest.raises(UserError, match=r"`mar make some --out .* ended with code 2") as failed:
        prepare(grid, tmp_path / "out", said.append)
    assert len(said) == 1 and "\n" not in str(failed.value) and capfd.readouterr().out == "why\n"
    assert pending(grid, tmp_path / "out") == list(grid.prepare)


def test_a_signal_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    waits = (
        "import signal, time, pathlib as p; signal.signal(signal.SIGTERM, lambda *_: p.Path('told').touch() "
        "or exit(143)); p.Path('on').touch(); time.sleep(60)"
    )
    monkeypatch.setattr(module, "PROGRAM", (*module.PROGRAM[:1], "-c", waits))

    def stop() -> None:
        while not (tmp_path / "on").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Stopped):
        prepare(grid_in(tmp_path), tmp_path / "out", lambda said: None)
    assert (tmp_path / "told").exists()


@pytest.mark.parametrize(
    "command, value, message", [("use 'it", "x", "quot"), ("use ${given.data}", "a b", "has a blank")]
)
def test_what_cannot_be_split_is_refused_before_anything_runs(
    tmp_path: Path, command: str, value: str, message: str
) -> None:
    text = f'given: {{data: {value}}}\nprepare: [make it, "{command}"]\nrecipe: digits\naxes: {{seed: [0]}}'
    said: list[str] = []
    with pytest.raises(UserError, match=message):
        prepare(grid_in(tmp_path, text), tmp_path / "out", said.append)
    assert said == []

"""What the library says, where, and how it is silenced."""

import logging
import subprocess
import sys

import pytest

from mar.core.log import aside, logger, set_up
from mar.core.progress import bar


@pytest.fixture(autouse=True)
def usual():
    yield
    set_up()


def test_lines_go_out_and_warnings_and_asides_beside(capsys, monkeypatch):
    def say() -> tuple[str, str]:
        for level in (logger.debug, logger.info, logger.warning, logger.error, aside.info):
            level(f"{level.__self__.name}.{level.__name__}")
        return tuple(" ".join(text.split()) for text in capsys.readouterr())

    assert say() == ("mar.info", "mar.warning mar.error mar.aside.info")
    set_up(1)
    assert say()[0] == "mar.debug mar.info"
    set_up(-1)
    assert say() == ("", "mar.warning mar.error")
    set_up(beside=True)
    assert say() == ("", "mar.info mar.warning mar.error mar.aside.info")
    set_up()
    monkeypatch.setenv("RANK", "1")
    assert say() == ("", "mar.error")  # the first process speaks for the others


def test_a_level_of_logging_silences_a_notebook(capsys):
    logging.getLogger("mar").setLevel(logging.WARNING)
    logger.info("a line")
    aside.info("another")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("verbosity", "said"), [(0, True), (-1, False)])
def test_quiet_shows_no_bar(capsys, verbosity, said):
    set_up(verbosity)
    with bar("scoring") as progress:
        progress(1, 2)
    assert ("scoring" in capsys.readouterr().err) == said


def test_every_command_takes_verbose_and_quiet():
    found = subprocess.run(
        [sys.executable, "-m", "mar", "recipes", "digits", "-q", "-v"], capture_output=True, text=True
    )
    assert found.returncode == 0 and "mar train digits" in found.stdout

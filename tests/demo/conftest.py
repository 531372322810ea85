from __future__ import annotations

from pathlib import Path

import pytest

from mar import config
from mar.demo.session import Session
from mar.run import load, train
from tests.cli.test_main import TINY

QUIET = [*TINY, "train.sample_every=0", "train.validate_every=0"]


def session_of(folder: Path, *overrides: str) -> Session:
    """A session of a run of the digits, trained for four iterations."""
    train(config.read("digits", [*QUIET, *overrides]), folder / "run")
    (folder / "orders").mkdir()
    return Session(load(folder / "run", device="cpu"), folder / "orders")


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return session_of(tmp_path_factory.mktemp("demo"))

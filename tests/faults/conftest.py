from __future__ import annotations

from pathlib import Path

import pytest

from mar import config
from mar.config import Recipe
from mar.training import checkpoint
from mar.training.run_folder import RunFolder
from tests.training.conftest import TINY

EVERY = 5  # iterations between checkpoints


class Trained:
    """A small run of the digits in a folder, and what a test asks about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.overrides = [*TINY, f"train.save_every={EVERY}", "network.projection_dropout=0.1"]

    def command(self, iterations: int, *overrides: str) -> list[str]:
        changes = [*self.overrides, f"train.iterations={iterations}", *overrides]
        return ["train", "digits", *changes, "--out", str(self.path)]

    @property
    def logged(self) -> int:
        """The last iteration that was logged."""
        return max((line["iteration"] for line in RunFolder(self.path).history()), default=0)

    @property
    def saved(self) -> int:
        """The iteration of the newest whole checkpoint."""
        newest, _ = checkpoint.latest(self.path / "checkpoints")
        return 0 if newest is None else newest.iteration


@pytest.fixture
def run(tmp_path: Path) -> Trained:
    return Trained(tmp_path / "run")


@pytest.fixture
def recipe() -> Recipe:
    return config.read("digits", TINY)

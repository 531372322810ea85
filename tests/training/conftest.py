"""A recipe so small that a run takes seconds."""

from __future__ import annotations

import pytest

from mar import config
from mar.config import Recipe

TINY = [
    "network.encoder_width=16", "network.encoder_depth=1", "network.encoder_heads=2", "network.decoder_width=16",
    "network.decoder_depth=1", "network.decoder_heads=2", "network.buffer=1", "train.batch_size=16",
    "train.iterations=10", "train.validate_every=0", "train.sample_every=0", "train.log_every=1", "train.save_every=5",
]  # fmt: skip


@pytest.fixture
def tiny() -> list[str]:
    return list(TINY)


@pytest.fixture
def recipe(tiny: list[str]) -> Recipe:
    return config.read("digits", tiny)

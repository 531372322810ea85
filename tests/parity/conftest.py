"""The recorded behaviour of the published implementation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open


@pytest.fixture(scope="session")
def folder() -> Path:
    name = os.environ.get("MAR_PARITY_DIR")
    if not name:
        pytest.skip("MAR_PARITY_DIR does not name the folder of recorded behaviour")
    return Path(name)


@pytest.fixture(scope="session")
def recorded(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "reference_mar.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping


@pytest.fixture(scope="session")
def config(folder: Path) -> dict:
    with safe_open(folder / "reference_mar.safetensors", "pt") as file:
        return json.loads(file.metadata()["config"])


@pytest.fixture(scope="session")
def published(recorded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict, in the released names and shapes."""
    return {key.removeprefix("state."): value for key, value in recorded.items() if key.startswith("state.")}

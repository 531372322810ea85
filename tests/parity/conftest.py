"""The recorded behaviour of the published implementation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mar.compat.released import import_run
from mar.compat.weights_file import read
from mar.model.model import Model
from mar.run import Run, load


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


@pytest.fixture(scope="session")
def released(published, tmp_path_factory) -> Path:
    """A file as it is released; its averaged weights are the recorded ones, its last ones others."""
    last = {name: weight + 1.0 for name, weight in published.items()}
    path = tmp_path_factory.mktemp("released") / "mar.pth"
    torch.save({"model": last, "model_ema": published}, path)
    return path


@pytest.fixture(scope="session")
def run(released, config) -> Run:
    """The run that ``mar import`` makes of it."""
    out = released.parent / "run"
    import_run(read(released), out, (config["encoder_num_heads"], config["decoder_num_heads"]))
    return load(out, device="cpu")


@pytest.fixture(scope="session")
def model(run) -> Model:
    """Our model with every published weight in it."""
    return run.model

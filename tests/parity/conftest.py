"""The recorded behaviour of the published implementation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mar.compat.published import infer, rename
from mar.heads.diffusion import DiffusionHead, DiffusionOptions
from mar.model import Model
from mar.networks.masked_transformer import MaskedTransformer
from mar.tokenizers.base import Tokenizer
from mar.tokens import Vectors


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
def model(published, config) -> Model:
    """Our model with every published weight in it."""
    found = infer(published, config["encoder_num_heads"], config["decoder_num_heads"])
    tokenizer = Tokenizer()
    tokenizer.shape, tokenizer.token = (4, 4), Vectors(found.token_width)
    network = MaskedTransformer(tokenizer.shape, found.network)
    head = DiffusionHead(
        network.context_width, tokenizer.token, DiffusionOptions(width=found.head_width, depth=found.head_depth)
    )
    model = Model(tokenizer, network, head, found.n_classes)
    missing = model.load_state_dict(rename(published), strict=False).missing_keys
    assert not [name for name in missing if dict(model.named_parameters()).get(name) is not None]
    return model.eval()

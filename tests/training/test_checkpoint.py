"""Checkpoints of models whose tensors share memory: tied weights are kept once, and stay tied."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import mar
from mar import config
from mar.core.errors import UserError
from mar.networks import NETWORKS
from mar.networks.baselines import Independent
from mar.run import train
from mar.training import checkpoint


class Tied(Independent):
    """Two layers with one weight matrix, as the embedding and the output of GPT-2."""

    def __init__(self, shape, options):
        super().__init__(shape, options)
        width = options.context_width
        self.up, self.down = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.down.weight = self.up.weight

    def forward(self, token_BLD, step_BL, condition_BC, target_BL):
        return self.down(torch.relu(self.up(super().forward(token_BLD, step_BL, condition_BC, target_BL))))


@pytest.mark.parametrize("ema", [False, True])
def test_tied_weights_are_written_once_and_read_into_both_places(tmp_path, ema):
    model = Tied((4,), Tied.Options())
    averages = {name: p.detach() + 1.0 for name, p in model.named_parameters()}
    saved = checkpoint.save(tmp_path, 3, model.state_dict(), averages, {}, keep=1)
    assert load_file(saved.path / "model.safetensors").keys() == dict(model.named_parameters()).keys()
    other = Tied((4,), Tied.Options())
    saved.load_model(other, ema=ema)
    assert other.down.weight is other.up.weight
    assert torch.equal(other.down.weight, model.up.weight + 1.0 * ema)
    assert saved.holds(model.state_dict(), averages) and not saved.holds(other.state_dict(), model.state_dict())


def test_a_part_of_a_larger_tensor_is_written_as_a_copy(tmp_path):
    whole = torch.arange(12.0).reshape(4, 3)
    weights = {"whole": whole, "rows": whole[1:3], "columns": whole[:, :2]}
    saved = checkpoint.save(tmp_path, 1, weights, {"rows": whole[1:3]}, {}, keep=1)
    content = load_file(saved.path / "model.safetensors")
    assert all(torch.equal(content[name], weight) for name, weight in weights.items())


def test_a_network_of_ones_own_with_tied_weights_trains_resumes_and_loads(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "tied", Tied)
    overrides = ["network=tied", "train.batch_size=8", "train.validate_every=0", "train.sample_every=0"]
    for iterations in (2, 3):
        train(config.read("digits", [*overrides, f"train.iterations={iterations}"]), tmp_path)
    for ema in (False, True):
        network = mar.load(tmp_path, ema=ema, device="cpu").model.network
        assert network.down.weight is network.up.weight


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_a_fitting_checksum_is_refused_unexecuted(tmp_path, monkeypatch, new_format):
    monkeypatch.chdir(tmp_path)
    model = Tied((4,), Tied.Options())
    saved = checkpoint.save(tmp_path / "run", 3, model.state_dict(), {}, {}, keep=1)
    for name in ("model.safetensors", "ema.safetensors"):
        (saved.path / name).write_bytes(pickle.dumps(Harmful()))
    torch.save({"optimizer": Harmful()}, saved.path / "optimizer.pt", _use_new_zipfile_serialization=new_format)
    checkpoint.seal(saved.path, 3)
    for load, name in (
        (lambda: saved.load_model(model), "model.safetensors"),
        (saved.load_ema, "ema.safetensors"),
        (saved.load_optimizer, "optimizer.pt"),
    ):
        with pytest.raises(UserError, match=rf"{name} does not hold"):
            load()
    assert not (tmp_path / "harm").exists()

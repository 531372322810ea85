"""Released files in, run folders and autoencoders out, and back: with the recorded weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from mar.cli.main import app
from mar.compat.released import export_run
from mar.run import load
from mar.tokenizers.kl import KL, KLOptions


@pytest.fixture(scope="module")
def recorded_vae(folder):
    with safe_open(folder / "reference_vae.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        return json.loads(file.metadata()["config"]), tensors


@pytest.fixture(scope="module")
def vae(recorded_vae, tmp_path_factory):
    """The folder that ``mar import`` writes of the autoencoder."""
    folder = tmp_path_factory.mktemp("vae")
    state = {key.removeprefix("state."): value for key, value in recorded_vae[1].items() if key.startswith("state.")}
    torch.save({"model": state}, folder / "kl.ckpt")
    done = CliRunner().invoke(app, ["import", str(folder / "kl.ckpt"), "--out", str(folder / "out")])
    assert done.exit_code == 0, done.output
    return folder / "out"


def test_the_file_comes_back_bit_for_bit(released, run, published):
    states, scale = export_run(load(run.folder.path, ema=False, device="cpu"))
    original = torch.load(released, weights_only=True)
    assert scale == 0.2325
    for name, state in original.items():
        assert state.keys() == states[name].keys()
        assert all(torch.equal(state[key], states[name][key]) for key in state)


def test_the_run_samples_without_any_data(run):
    latents = run.sample(2, "random/cosine:4", guidance=2.0, steps=10, start=999)
    assert latents.shape == (2, 16, 4, 4) and bool(latents.isfinite().all())


def test_the_autoencoder_agrees(vae, recorded_vae):
    from diffusers import AutoencoderKL

    config, recorded = recorded_vae
    model = AutoencoderKL.from_pretrained(vae)
    assert list(model.config.block_out_channels) == [config["ch"] * factor for factor in config["ch_mult"]]
    assert model.config.sample_size == config["resolution"]
    with torch.no_grad():
        latent = model.encode(recorded["in.images"]).latent_dist
        decoded = model.decode(recorded["out.mean"]).sample
    for ours, name in ((latent.mean, "mean"), (latent.logvar, "logvar"), (decoded, "decoded_mean")):
        deviation = float((ours - recorded[f"out.{name}"]).abs().max())
        print(f"{name}: max deviation {deviation:.2e}")
        assert deviation <= 1e-4


def test_the_tokenizer_decodes_what_the_autoencoder_does(vae, recorded_vae):
    from mar.core.spec import DataSpec

    recorded = recorded_vae[1]
    tokenizer = KL(DataSpec((3, 32, 32), 256), KLOptions(path=str(vae), patch=2, scale=0.5))
    mean = recorded["out.mean"]
    token = tokenizer.encode(torch.cat([mean, torch.zeros_like(mean)], dim=1))  # as a cache gives it
    images = tokenizer.decode(token).float() / 127.5 - 1.0
    assert float((images - recorded["out.decoded_mean"].clamp(-1, 1)).abs().max()) <= 0.5 / 127.5 + 1e-4

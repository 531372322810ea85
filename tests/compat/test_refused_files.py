"""What is no released checkpoint, and what becomes none, is refused in one line; nothing in a file is executed."""

from __future__ import annotations

import os

import pytest
import torch
from typer.testing import CliRunner

from mar import config
from mar.cli.main import app
from mar.compat.released import export_run, import_run
from mar.compat.weights_file import read
from mar.core.errors import Unsupported, UserError
from mar.run import load, train
from tests.compat.conftest import PATCH, SIZE


@pytest.mark.parametrize(
    "change, said",
    [
        ({"blocks.0.ls1": torch.zeros(1)}, "blocks.0.ls1"),
        ({"encoder_norm.weight": None}, "encoder_norm.weight"),
        ({"encoder_norm.weight": torch.zeros(4)}, "encoder_norm.weight"),
        ({"diffusion_pos_embed_learned": torch.zeros(1, 8, 24)}, "no square"),
        ({"z_proj.weight": torch.zeros(3)}, "other dimensions"),
        ({"mask_token": torch.zeros(2)}, "mask_token"),
        ({"encoder_blocks.999999999.norm1.weight": torch.zeros(16)}, "other dimensions"),
        ({"mask_token": torch.zeros(1).expand(10**12, 1)}, r"mask_token of the file is no plain tensor"),
        ({"mask_token": torch.zeros(1, 1, 24).to_sparse()}, "no plain tensor"),
        ({"encoder_norm.bias": torch.full((16,), torch.inf)}, r"first 'encoder_norm\.bias'"),
    ],
)
def test_other_weights_are_refused_by_name(content, tmp_path, change, said):
    state = {key: value for key, value in (content["model"] | change).items() if value is not None}
    with pytest.raises(UserError, match=said):
        import_run(state, tmp_path, (2, 4), patch=PATCH)


def test_averaged_weights_that_are_no_numbers_are_refused(content, tmp_path):
    average = {**content["model_ema"], "mask_token": torch.full((1, 1, 24), torch.nan)}
    with pytest.raises(UserError, match="1 weights of model_ema are NaN or infinite, first 'mask_token'"):
        import_run({**content, "model_ema": average}, tmp_path, (2, 4), patch=PATCH)


@pytest.mark.parametrize("held", [[1, 2], None, "weights"])
def test_what_is_no_state_dict_is_refused_by_what_it_is(content, tmp_path, held):
    for key in ("model", "model_ema"):
        with pytest.raises(UserError, match=f"^{key} holds a {type(held).__name__}, not a state dict"):
            import_run({**content, key: held}, tmp_path, (2, 4), patch=PATCH)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_positive_and_finite(content, tmp_path, scale):
    with pytest.raises(UserError, match="--scale is a positive number"):
        import_run(content, tmp_path, (2, 4), patch=PATCH, scale=scale)


def test_cached_latents_are_looked_for_at_once(content, tmp_path):
    with pytest.raises(UserError, match="nothere is no cache of latents"):
        import_run(content, tmp_path / "run", (2, 4), patch=PATCH, data="nothere")
    assert not (tmp_path / "run").exists()


class Attack:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Attack()}, "attack.pth")
    with pytest.raises(UserError, match="nothing in a file is executed"):
        read(tmp_path / "attack.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", b"hello\n", b"epoch,loss\n1,2\n", b"{}", None])
def test_damaged_files_are_refused_in_one_line(file, tmp_path, damage):
    (tmp_path / "mar.pth").write_bytes(file.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(UserError, match=r"mar\.pth") as error:
        read(tmp_path / "mar.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mar.ckpt", "mar.pt", "mar.safetensors"])
def test_other_files_are_not_made_folders_of_that_name(run, tmp_path, name):
    done = CliRunner().invoke(app, ["export", str(run.folder.path), "--out", str(tmp_path / name)])
    assert isinstance(done.exception, UserError) and ".pth" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_images_are_refused_before_they_are_generated_as_latents(run, tmp_path):
    store, path = tmp_path / "store", str(run.folder.path)
    for arguments in (["generate", path, "--out", str(store)], ["fid", path, "--against", "digits"]):
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, UserError) and "makes latents: name their autoencoder" in str(done.exception)
    assert not store.exists()


@pytest.mark.parametrize(
    "override, reason",
    [
        ("network=per-position", "network per-position"),
        ("network.rotary=sequence", "rotary positions"),
        ("head=flow", "head flow"),
        ("head.schedule=linear", "schedule linear"),
        ("class_conditional=false", "no classes"),
        ("tokenizer.patch=2", "tokenizer patches"),
    ],
)
def test_other_runs_are_not_exported_with_the_reason(tmp_path, override, reason):
    small = [f"network.{key}={value}" for key, value in SIZE.items()] if "network" not in override else []
    fixed = ["tokenizer=patches", "head=diffusion", "head.width=8", "head.depth=1", "train.iterations=1",
             "train.batch_size=4", "train.validate_every=0", "train.sample_every=0"]  # fmt: skip
    train(config.read("digits", [*fixed, *small, override]), tmp_path)
    with pytest.raises(Unsupported, match=reason):
        export_run(load(tmp_path, device="cpu"))

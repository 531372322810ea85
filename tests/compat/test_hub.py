"""Runs as folders of the hub: saved, read back, and uploaded, with a model card."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from typer.testing import CliRunner

import mar
from mar import config
from mar.cli.main import app
from mar.core.errors import UserError
from mar.run import train
from mar.training import checkpoint
from mar.training.run_folder import RunFolder

TINY = [
    "network.encoder_width=16", "network.encoder_depth=1", "network.encoder_heads=2", "network.decoder_width=16",
    "network.decoder_depth=1", "network.decoder_heads=2", "network.buffer=1", "train.batch_size=16",
    "train.iterations=2", "train.validate_every=0", "train.sample_every=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny-digits"
    train(config.read("digits", [*TINY, "name=tiny-digits"]), folder)
    score = {"plan": "raster", "kind": "exact", "nats_per_image": 123.456, "standard_error_nats": 1.0, "n_images": 7}
    (folder / "scores").mkdir()
    (folder / "scores" / "nll-raster.json").write_text(json.dumps(score))
    return folder


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    from mar.compat.hub import PretrainedRun

    folder = tmp_path_factory.mktemp("hub") / "model"
    PretrainedRun(trained, device="cpu").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("ema", [True, False])
def test_what_is_read_back_is_the_run(trained, saved, ema):
    from mar.compat.hub import PretrainedRun

    before = mar.load(trained, ema=ema, device="cpu")
    for after in (PretrainedRun.from_pretrained(saved, ema=ema, device="cpu"), mar.load(saved, ema=ema, device="cpu")):
        weights = before.model.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in after.model.state_dict().items())
        images = before.sample(3, "spiral/cosine:4")
        assert torch.equal(after.sample(3, "spiral/cosine:4"), images)


def test_a_repository_holds_safetensors_and_no_pickles_or_paths(trained, saved):
    files = {path.name for path in saved.rglob("*") if path.is_file()}
    assert files == {
        "README.md", "config.json", "recipe.yaml", "data.json", "state.json", "model.safetensors", "ema.safetensors"
    }  # fmt: skip
    for path in saved.rglob("*.[jym][sad]*"):
        assert str(trained.parent) not in path.read_text()


def test_the_card_says_what_was_trained_and_measured(saved):
    card = (saved / "README.md").read_text()
    for said in ("library_name: mar-orderings", "# tiny-digits", "123.46 ± 1.00 nats, exact", "masked-transformer"):
        assert said in card
    assert f'from_pretrained("{saved.name}")' in card  # the folder it lies in


def test_uploading_sends_that_folder(trained, monkeypatch):
    from mar.compat import hub

    sent = {}

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            sent["private"] = options["private"]
            return type("Repository", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **options):
            sent["files"] = {path.name for path in folder_path.rglob("*") if path.is_file()}
            sent["card"] = (folder_path / "README.md").read_text()
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(sys.modules[hub.ModelHubMixin.__module__], "HfApi", Hub)
    done = CliRunner().invoke(app, ["export", str(trained), "--push", "me/tiny", "--private"])
    assert done.exit_code == 0 and "https://hub/me/tiny" in done.output, done.output
    assert sent["private"] and "ema.safetensors" in sent["files"]
    assert 'from_pretrained("me/tiny")' in sent["card"]


def test_a_hub_out_of_reach_is_one_line(trained, monkeypatch):
    from mar.compat.hub import PretrainedRun

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"the hub did not give it .* check the name") as error:
        PretrainedRun.from_pretrained("nobody/nothing", cache_dir=trained / "cache")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("there", ["config.json", "checkpoints", ""])
def test_nothing_that_is_there_is_overwritten(trained, tmp_path, there):
    out = tmp_path / "there" if there else tmp_path / "file"
    (out if there else tmp_path).mkdir(exist_ok=True)
    (out / there).write_text("{}")
    done = CliRunner().invoke(app, ["export", str(trained), "--out", str(out)])
    assert isinstance(done.exception, UserError) and "is not empty" in str(done.exception)
    assert (out / there).read_text() == "{}" and len(list(tmp_path.rglob("*.*"))) <= 1


@pytest.mark.parametrize("name", ["noslash", "a/b/c", "me/"])
def test_a_name_without_an_owner_is_refused_as_one(trained, name):
    done = CliRunner().invoke(app, ["export", str(trained), "--push", name])
    assert isinstance(done.exception, UserError) and "OWNER/NAME" in str(done.exception)


@pytest.mark.parametrize("iterations, said", [(2, []), (4, ["an unfinished run: 2 of 4 iterations"])])
def test_the_best_of_a_run_is_as_finished_as_the_run(trained, tmp_path, iterations, said):
    from mar.compat.hub import PretrainedRun

    run, best = tmp_path / "run", tmp_path / "run" / "best" / "00000001"
    shutil.copytree(trained, run)
    shutil.copytree(run / "checkpoints" / "00000002", best, ignore=shutil.ignore_patterns("state.json"))
    checkpoint.seal(best, 1)
    recipe = RunFolder(run).recipe()
    length = {"keep_best": True, "iterations": iterations}
    RunFolder(run).write_description(
        recipe.model_copy(update={"train": recipe.train.model_copy(update=length)}), mar.load(run).about
    )
    PretrainedRun(run, device="cpu").save_pretrained(tmp_path / "saved")
    for folder in (run, tmp_path / "saved"):
        loaded = mar.load(folder, device="cpu")
        assert loaded.checkpoint.iteration == 1
        assert [line for line in loaded.warnings(loaded.training_plan) if "unfinished" in line] == said


def test_an_autoencoder_travels_with_its_run(tmp_path):
    from diffusers import AutoencoderKL

    from mar.compat.hub import PretrainedRun

    AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=8, latent_channels=2,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(tmp_path / "kl")  # fmt: skip
    overrides = [*TINY, "tokenizer=kl", f"tokenizer.path={tmp_path / 'kl'}", "head=diffusion", "head.width=8"]
    train(config.read("digits", [*overrides, "head.depth=1"]), tmp_path / "run")
    PretrainedRun(tmp_path / "run", device="cpu").save_pretrained(tmp_path / "saved")
    (tmp_path / "kl").rename(tmp_path / "elsewhere")
    (tmp_path / "saved").rename(tmp_path / "moved")
    moved = mar.load(tmp_path / "moved", device="cpu")
    assert moved.sample(2, "random/equal:2", steps=3).shape == (2, 1, 8, 8)

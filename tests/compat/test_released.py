"""Released checkpoints become runs and come back, at any sizes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner

from mar.cli.main import app
from mar.compat.published import infer
from mar.compat.released import described, export_run, import_run, state_dicts
from mar.compat.weights_file import read
from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.shards import Manifest, Settings
from mar.metrics.store import Store
from mar.networks import NETWORKS
from mar.networks.masked_transformer import SIZES
from mar.run import load
from mar.training import checkpoint
from mar.training.run_folder import RunFolder
from tests.compat.conftest import CHANNELS, CLASSES, PATCH, SIZE


def test_sizes_patches_and_classes_are_inferred(run):
    assert {name: getattr(run.model.network.sizes, name) for name in SIZE} == SIZE
    assert run.spec.shape == (CHANNELS, 6, 6) and run.spec.n_classes == CLASSES
    assert (run.model.head.options.width, run.model.head.options.depth) == (20, 2)
    assert run.recipe.train.learning_rate == 8e-4  # the published training


def test_released_files_come_back_bit_for_bit(run, content):
    states, scale = export_run(load(run.folder.path, ema=False, device="cpu"))
    assert scale == 0.2325
    for name in ("model", "model_ema"):
        assert states[name].keys() == content[name].keys()
        assert all(torch.equal(states[name][key], content[name][key]) for key in states[name])


def test_averaged_and_last_weights_are_told_apart(run, content):
    last = load(run.folder.path, ema=False, device="cpu")
    assert torch.equal(run.model.classes.weight, content["model_ema"]["class_emb.weight"])
    assert torch.equal(last.model.classes.weight, content["model"]["class_emb.weight"])


def test_an_imported_run_samples_where_there_are_no_data(run):
    latents = run.sample(2, "random/equal:3", guidance=2.0, steps=4, start=999)
    assert latents.shape == (2, CHANNELS, 6, 6) and bool(latents.isfinite().all())
    with pytest.raises(UserError, match=r"data\.path"):
        run.nll(limit=1)


def test_an_imported_run_never_says_that_its_data_have_changed(run):
    here = load(run.folder.path, device="cpu")
    read = replace(here.about, fingerprint="0123456789abcdef")
    here.data = SimpleNamespace(about=read)  # type: ignore[assignment] - data of any kind
    assert not [said for said in here.warnings(here.training_plan) if "have changed" in said]


def test_a_bare_state_dict_stands_for_both(content, tmp_path):
    import_run(content["model_ema"], tmp_path, (2, 4), patch=PATCH)
    states, _ = export_run(load(tmp_path, ema=False, device="cpu"))
    assert torch.equal(states["model"]["z_proj.weight"], states["model_ema"]["z_proj.weight"])


def test_a_published_size_is_named(content):
    shapes = {name: torch.empty(0) for name in content["model"]}
    shapes |= {
        f"{part}_blocks.{i}.norm1.weight": torch.empty(0) for part in ("encoder", "decoder") for i in range(12)
    } | {
        "z_proj.weight": torch.empty(768, 16),
        "decoder_embed.weight": torch.empty(768, 768),
        "encoder_blocks.0.mlp.fc1.weight": torch.empty(3072, 768),
        "encoder_pos_embed_learned": torch.empty(1, 320, 768),
        "diffusion_pos_embed_learned": torch.empty(1, 256, 768),
        "class_emb.weight": torch.empty(1000, 768),
        "diffloss.net.input_proj.weight": torch.empty(1024, 16),
    }
    recipe, _, latents = described(infer(shapes), "mar", None, "", None, "")
    assert latents == (16, 16, 16)
    assert recipe.network.model_extra["size"] == "base" and "encoder_width" not in recipe.network.model_extra
    assert NETWORKS.options(recipe.network.kind, recipe.network.model_extra).sizes == SIZES["base"]


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod.", "inside"]
)
def test_names_of_wrapped_models_are_known(content, prefix):
    """DistributedDataParallel's and torch.compile's, around the whole model or (``inside``) around parts of it."""
    if prefix == "inside":
        wrapped = {name.replace("diffloss.net.", "diffloss.net._orig_mod."): w for name, w in content["model"].items()}
    else:
        wrapped = {prefix + name: weight for name, weight in content["model"].items()}
    last, average = state_dicts({"model": wrapped, "model_ema": content["model_ema"]})
    for found, theirs in ((last, content["model"]), (average, content["model_ema"])):
        assert found.keys() == theirs.keys() and all(torch.equal(found[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("last, average", [("model", "ema"), ("state_dict", "state_dict_ema"), ("model", "ema_model")])
def test_averaged_weights_are_found_under_the_names_of_other_projects(content, last, average):
    found = state_dicts({last: content["model"], average: content["model_ema"], "opt": {}, "args": None})
    for mine, theirs in zip(found, (content["model"], content["model_ema"]), strict=True):
        assert torch.equal(mine["mask_token"], theirs["mask_token"])


def test_a_weight_that_is_there_twice_is_refused(content):
    twice = {**content["model"], "_orig_mod.mask_token": content["model_ema"]["mask_token"]}
    with pytest.raises(UserError, match="two weights of one name"):
        state_dicts({"model": twice})


@pytest.mark.parametrize("width, heads", [(64, 1), (128, 2), (192, 3), (768, 12), (1024, 16), (1280, 16)])
def test_heads_are_the_published_ones_or_have_64_channels(content, width, heads):
    shapes = {name: torch.empty(0) for name in content["model"]} | {
        "z_proj.weight": torch.empty(width, 16),
        "decoder_embed.weight": torch.empty(width, width),
        "encoder_blocks.0.mlp.fc1.weight": torch.empty(4 * width, width),
        "encoder_pos_embed_learned": torch.empty(1, 320, width),
        "diffusion_pos_embed_learned": torch.empty(1, 256, width),
        "class_emb.weight": torch.empty(1000, width),
        "diffloss.net.input_proj.weight": torch.empty(1024, 16),
    }
    assert (infer(shapes).network.encoder_heads, infer(shapes).network.decoder_heads) == (heads, heads)


def test_a_run_keeps_its_weights(content, tmp_path):
    import_run(content, tmp_path, (2, 4), patch=PATCH)
    before = checkpoint.latest(RunFolder(tmp_path).checkpoints)
    import_run(content, tmp_path, (2, 4), patch=PATCH)  # the same ones: there is nothing to do
    for other in (content["model_ema"], {**content, "model_ema": content["model"]}):
        with pytest.raises(UserError, match="holds a run of other weights"):
            import_run(other, tmp_path, (2, 4), patch=PATCH)
    assert checkpoint.latest(RunFolder(tmp_path).checkpoints) == before
    assert torch.equal(load(tmp_path, device="cpu").model.classes.weight, content["model_ema"]["class_emb.weight"])


def test_the_commands_make_the_round_trip(file, tmp_path):
    run, back = str(tmp_path / "run"), tmp_path / "back.pth"
    asked = ["import", str(file), "--out", run, "--heads", "2", "--decoder-heads", "4", "--patch", str(PATCH)]
    for arguments in (asked, ["export", run, "--out", str(back)]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        said = "2 and 4 attention heads, latents 3x6x6 in patches of 2x2"
        assert arguments is not asked or said in done.output.replace("\n", " ")
    assert torch.equal(read(back)["model"]["mask_token"], read(file)["model"]["mask_token"])
    again = CliRunner().invoke(app, [*asked[:-1], "1"])  # other patches: another recipe
    assert isinstance(again.exception, UserError) and "another recipe" in str(again.exception)


def test_a_name_in_capitals_is_a_file_too(run, tmp_path):
    assert CliRunner().invoke(app, ["export", str(run.folder.path), "--out", str(tmp_path / "M.PTH")]).exit_code == 0
    assert read(tmp_path / "M.PTH").keys() == {"model", "model_ema"}


def test_cached_latents_bring_their_autoencoder(content, vae, tmp_path):
    settings = Settings("digits", {}, "", DataSpec((1, 12, 12), 17), "kl", "", False, "float32", 256)
    shutil.copytree(vae, tmp_path / "cache" / "tokenizer")
    manifest = TypeAdapter(Manifest).dump_json(Manifest(settings, (0.0,) * CHANNELS, (1.0,) * CHANNELS))
    (tmp_path / "cache" / "manifest.json").write_bytes(manifest)
    import_run(content, tmp_path / "run", (2, 4), patch=PATCH, data=str(tmp_path / "cache"))
    assert load(tmp_path / "run", device="cpu").spec.shape == (1, 12, 12)


def test_an_autoencoder_may_be_named_when_images_are_asked_for(run, vae, tmp_path):
    asked = ["--vae", vae, "-n", "8", "--head", "steps=2", "--plan", "random/equal:1"]
    done = CliRunner().invoke(app, ["generate", str(run.folder.path), "--out", str(tmp_path / "store"), *asked])
    assert done.exit_code == 0, done.exception
    assert Store.open(tmp_path / "store").spec.shape == (1, 12, 12)
    asked[-2:] = ["--plans", asked[-1], "--store", str(tmp_path / "store"), "--against", "digits"]
    done = CliRunner().invoke(app, ["fid", str(run.folder.path), *asked])  # scores that store, and digits are smaller
    assert "those to score (1, 12, 12)" in str(done.exception)

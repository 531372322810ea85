"""Released checkpoints become runs and come back, at any sizes; what is no such checkpoint is refused."""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter
from typer.testing import CliRunner

from mar import build, config
from mar.cli import app
from mar.compat.published import infer, restore
from mar.compat.released import described, export_run, import_run
from mar.compat.weights_file import read
from mar.data.base import About, DataSpec
from mar.data.shards import Manifest, Settings
from mar.errors import Unsupported, UserError
from mar.evaluation.store import Store
from mar.fit import train
from mar.networks.masked_transformer import SIZES
from mar.run import load
from mar.training import checkpoint
from mar.training.run_folder import RunFolder

SIZE = {
    "encoder_width": 16, "encoder_depth": 2, "encoder_heads": 2, "decoder_width": 24, "decoder_depth": 1,
    "decoder_heads": 4, "buffer": 3,
}  # fmt: skip
PATCH, CHANNELS, CLASSES = 2, 3, 5


@pytest.fixture(scope="module")
def original():
    """A small random model of the published form: unequal widths, patches of 2, a buffer of 3."""
    recipe = config.parse(
        {
            "data": {"kind": "cache"},
            "tokenizer": {"kind": "latents", "patch": PATCH, "scale": 0.2325},
            "network": {"kind": "masked-transformer", **SIZE},
            "head": {"kind": "diffusion", "width": 20, "depth": 2},
        }
    )
    spec = DataSpec((CHANNELS, 3 * PATCH, 3 * PATCH), 0, CLASSES, modality="latent")
    return build.model(recipe, About("", spec, "")).eval()


def noisy(model, seed):
    """A state dict as released, no weight of which is left at its start."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return restore({name: p + 0.1 * torch.randn(p.shape, generator=generator) for name, p in weights.items()})


@pytest.fixture(scope="module")
def content(original):
    return {"model": noisy(original, 0), "model_ema": noisy(original, 1), "epoch": 3, "args": argparse.Namespace(lr=1)}


@pytest.fixture(scope="module")
def file(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "mar.pth"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def run(file):
    out = file.parent / "run"
    import_run(read(file), out, (2, 4), patch=PATCH)
    return load(out, device="cpu")


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
    here.data = replace(here.about, fingerprint="0123456789abcdef")  # type: ignore[assignment] - read, of any kind
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
    recipe, _ = described(infer(shapes), "mar", None, "", None, "")
    assert recipe.network.options["size"] == "base" and "encoder_width" not in recipe.network.options
    assert build.options("network", recipe.network).sizes == SIZES["base"]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"blocks.0.ls1": torch.zeros(1)}, "blocks.0.ls1"),
        ({"encoder_norm.weight": None}, "encoder_norm.weight"),
        ({"encoder_norm.weight": torch.zeros(4)}, "encoder_norm.weight"),
        ({"diffusion_pos_embed_learned": torch.zeros(1, 8, 24)}, "no square"),
        ({"z_proj.weight": torch.zeros(3)}, "other dimensions"),
        ({"mask_token": torch.zeros(2)}, "mask_token"),
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


def test_names_of_a_data_parallel_training_are_known(content, tmp_path):
    wrapped = {f"module.{name}": weight for name, weight in content["model"].items()}
    import_run({"model": wrapped}, tmp_path, (2, 4), patch=PATCH)
    assert torch.equal(load(tmp_path, device="cpu").model.classes.weight, content["model"]["class_emb.weight"])


def test_a_run_keeps_its_weights(content, tmp_path):
    import_run(content, tmp_path, (2, 4), patch=PATCH)
    before = checkpoint.latest(RunFolder(tmp_path).checkpoints)
    import_run(content, tmp_path, (2, 4), patch=PATCH)  # the same ones: there is nothing to do
    for other in (content["model_ema"], {**content, "model_ema": content["model"]}):
        with pytest.raises(UserError, match="holds a run of other weights"):
            import_run(other, tmp_path, (2, 4), patch=PATCH)
    assert checkpoint.latest(RunFolder(tmp_path).checkpoints) == before
    assert torch.equal(load(tmp_path, device="cpu").model.classes.weight, content["model_ema"]["class_emb.weight"])


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


def test_the_commands_make_the_round_trip(file, tmp_path):
    run, back = str(tmp_path / "run"), tmp_path / "back.pth"
    asked = ["import", str(file), "--out", run, "--heads", "2", "--decoder-heads", "4", "--patch", str(PATCH)]
    for arguments in (asked, ["export", run, "--out", str(back)]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    assert torch.equal(read(back)["model"]["mask_token"], read(file)["model"]["mask_token"])
    again = CliRunner().invoke(app, [*asked[:-1], "1"])  # other patches: another recipe
    assert isinstance(again.exception, UserError) and "another recipe" in str(again.exception)


@pytest.mark.parametrize("name", ["mar.ckpt", "mar.pt", "mar.safetensors"])
def test_other_files_are_not_made_folders_of_that_name(run, tmp_path, name):
    done = CliRunner().invoke(app, ["export", str(run.folder.path), "--out", str(tmp_path / name)])
    assert isinstance(done.exception, UserError) and ".pth" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_name_in_capitals_is_a_file_too(run, tmp_path):
    assert CliRunner().invoke(app, ["export", str(run.folder.path), "--out", str(tmp_path / "M.PTH")]).exit_code == 0
    assert read(tmp_path / "M.PTH").keys() == {"model", "model_ema"}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    from diffusers import AutoencoderKL

    path = tmp_path_factory.mktemp("vae") / "kl"
    AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=8, latent_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(path)  # fmt: skip
    return str(path)


def test_cached_latents_bring_their_autoencoder(content, vae, tmp_path):
    settings = Settings("digits", {}, "", DataSpec((1, 12, 12), 17), "kl", "", False, "float32", 256)
    shutil.copytree(vae, tmp_path / "cache" / "tokenizer")
    manifest = TypeAdapter(Manifest).dump_json(Manifest(settings, (0.0,) * CHANNELS, (1.0,) * CHANNELS))
    (tmp_path / "cache" / "manifest.json").write_bytes(manifest)
    import_run(content, tmp_path / "run", (2, 4), patch=PATCH, data=str(tmp_path / "cache"))
    assert load(tmp_path / "run", device="cpu").spec.shape == (1, 12, 12)


def test_images_are_refused_before_they_are_generated_as_latents(run, tmp_path):
    store, path = tmp_path / "store", str(run.folder.path)
    for arguments in (["generate", path, "--out", str(store)], ["fid", path, "--against", "digits"]):
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, UserError) and "makes latents: name their autoencoder" in str(done.exception)
    assert not store.exists()


def test_an_autoencoder_may_be_named_when_images_are_asked_for(run, vae, tmp_path):
    asked = ["--vae", vae, "-n", "8", "--head", "steps=2", "--plan", "random/equal:1"]
    done = CliRunner().invoke(app, ["generate", str(run.folder.path), "--out", str(tmp_path / "store"), *asked])
    assert done.exit_code == 0, done.exception
    assert Store.open(tmp_path / "store").spec.shape == (1, 12, 12)
    asked[-2:] = ["--plans", asked[-1], "--store", str(tmp_path / "store"), "--against", "digits"]
    done = CliRunner().invoke(app, ["fid", str(run.folder.path), *asked])  # scores that store, and digits are smaller
    assert "those to score (1, 12, 12)" in str(done.exception)


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

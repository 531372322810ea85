"""``train.init``: a run from the weights of another."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from mar import config, load
from mar.core.errors import UserError
from mar.run import train
from mar.training import checkpoint


def averaged(path):
    found, _ = checkpoint.latest(path / "checkpoints")
    return load_file(found.path / "model.safetensors") | found.load_ema()


def test_a_run_starts_from_the_averaged_weights_of_another(tmp_path, tiny, capsys):
    train(config.read("digits", [*tiny, "train.iterations=5"]), tmp_path / "first")
    overrides = [*tiny, "train.learning_rate=1e-12", "train.weight_decay=0", "train.iterations=1", "seed=7"]
    overrides += [f"train.init={tmp_path}/first", "class_conditional=false"]
    train(config.read("digits", overrides), tmp_path / "second")
    said = capsys.readouterr().out
    old, new = averaged(tmp_path / "first"), averaged(tmp_path / "second")
    assert old.keys() - new.keys() == {"classes.weight"} and "not used: classes.weight" in said
    assert all(torch.allclose(old[name], new[name], atol=1e-7) for name in new)
    record = json.loads((tmp_path / "second" / "init.json").read_text())
    assert record["unused"] == ["classes.weight"] and record["initialised"] == []
    train(config.read("digits", [*overrides, "train.iterations=2"]), tmp_path / "second")
    assert "tensors start from" not in capsys.readouterr().out, "a resumed run has weights of its own"


def test_what_does_not_fit_is_named_and_initialised_as_without_it(tmp_path, tiny, capsys):
    train(config.read("digits", [*tiny, "train.iterations=1"]), tmp_path / "first")
    file = checkpoint.latest(tmp_path / "first" / "checkpoints")[0].path / "model.safetensors"
    still = [
        *tiny,
        "train.iterations=1",
        "train.learning_rate=1e-12",
        "train.weight_decay=0",
        "network.decoder_width=8",
    ]
    train(config.read("digits", still), tmp_path / "plain")
    train(config.read("digits", [*still, f"train.init={file}"]), tmp_path / "second")
    assert "initialised: " in capsys.readouterr().out
    plain, second, first = (averaged(tmp_path / name) for name in ("plain", "second", "first"))
    other = {name for name in plain if name in first and plain[name].shape != first[name].shape}
    assert other and all(torch.allclose(plain[name], second[name], atol=1e-7) for name in other)
    assert load(tmp_path / "second").sample(1).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("init", ["missing", "digits.safetensors", "own"])
def test_weights_that_are_not_there_are_one_line(init, tmp_path, tiny):
    if init == "own":
        from safetensors.torch import save_file

        init = str(tmp_path / "own.safetensors")
        save_file({"x": torch.zeros(1)}, init)
    with pytest.raises(UserError, match=r"train.init=") as error:
        train(config.read("digits", [*tiny, f"train.init={init}"]), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run" / "recipe.yaml").exists()


def test_runs_of_the_hub_are_read_where_folders_are(tmp_path, tiny, monkeypatch):
    train(config.read("digits", [*tiny, "train.iterations=1"]), tmp_path / "me" / "run")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *a, **k: asked.append((a, k)) or tmp_path / "me/run"
    )
    monkeypatch.chdir(tmp_path / "me")
    assert load("someone/digits@v1").trained == 1
    assert asked == [(("someone/digits",), {"revision": "v1"})]
    (tmp_path / "me" / "runs").mkdir()
    with pytest.raises(UserError, match="runs/digits is not a run folder"):
        load("runs/digits")
    assert len(asked) == 1, "a folder that is here is not looked for on the hub"

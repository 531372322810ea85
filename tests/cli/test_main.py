"""The command line: quick help, one-line errors with the nearest valid choice, exit code 2, and the whole path."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mar import build, config
from mar.cli.main import app, describe_error, refuse_renamed
from mar.training import job

COMMANDS = [
    "score nll", "score fid", "score sets", "score exposure", "score consistency", "score matrix", "train", "sample",
    "generate", "fid", "fid-stats", "search-order", "ablate", "verify", "bench", "recipes",
    "status", "orderings list", "orderings show", "import", "export", "cache", "tokenizer train", "tokenizer score",
    "demo", "reproduce", "orderings gallery",
]  # fmt: skip
TINY = [
    "network.encoder_width=16", "network.encoder_depth=1", "network.encoder_heads=2", "network.decoder_width=16",
    "network.decoder_depth=1", "network.decoder_heads=2", "network.buffer=1", "train.batch_size=16",
    "train.iterations=4", "train.log_every=2", "train.validate_every=4", "train.sample_every=4", "train.save_every=2",
]  # fmt: skip


def mar(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "mar", *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=300
    )


def in_process(*arguments: str) -> str:
    """Run a command in this process; return its output."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refusal(*arguments: str) -> tuple[str, int | None]:
    """Return the line and the exit code of a refused command."""
    with pytest.raises(Exception) as refused:
        refuse_renamed(arguments)
        app(arguments, prog_name="mar", standalone_mode=False)
    return describe_error(refused.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command):
    said = in_process(*command.split(), "--help")
    assert "Example" in said and f"mar {command}" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_help_at_80_columns_is_no_wider_and_cuts_no_word(command, monkeypatch):
    wide = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*command.split(), "--help"]).output
    narrow = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command.split(), "--help"]).output
    assert max(map(len, narrow.splitlines())) <= 80
    assert sorted(wide.replace("\\\n", "").split()) == sorted(narrow.replace("\\\n", "").split())
    assert "…" not in narrow or "…" in wide


def test_the_first_page_of_help_groups_the_commands_in_a_window_of_40_lines():
    page = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["--help"]).output
    assert len(page.splitlines()) < 40 and "Experiments" in page
    assert "--install-completion" in page and in_process("--version").startswith("mar 0.")


def test_completion_knows_commands_and_options():
    asked = {"_MAR_COMPLETE": "complete_bash", "COMP_WORDS": "mar score nll --pa", "COMP_CWORD": "3"}
    done = subprocess.run([sys.executable, "-m", "mar"], capture_output=True, text=True, env={**os.environ, **asked})
    assert "--paired-with" in done.stdout.splitlines()


def test_a_model_that_does_not_fit_the_memory_is_refused_with_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "available_memory", lambda: 10**5)
    monkeypatch.chdir(tmp_path)
    line, code = refusal("train", "digits", *TINY)
    assert code == 2 and "GB are free" in line and "parameters, 0." in line and not any(tmp_path.iterdir())
    in_process("train", "digits", *TINY, "--ignore-memory", "--out", str(tmp_path / "run"))
    monkeypatch.setenv("MAR_IGNORE_MEMORY", "1")
    in_process("train", "digits", *TINY, "--out", str(tmp_path / "another"))


def test_activations_grow_with_the_rows_by_what_a_row_keeps():
    parts = build.assemble(config.read("digits", ["network=wavenet", "ordering=raster", "train.objective=next_set"]))
    one, three, five = (job._activation_bytes(parts, rows) for rows in (1, 3, 5))
    per_row, logits = (three - one) / 2, 64 * 17 * 4
    assert five - three == pytest.approx(three - one, rel=0.01) and one == pytest.approx(per_row, rel=0.01)
    assert 20 * logits < per_row < 1000 * logits


def test_recipes_are_found_by_words_and_one_is_shown_whole():
    everything, mnist = in_process("recipes"), in_process("recipes", "mnist", "made")
    assert everything.index("  digits ") < everything.index("With data") < everything.index("  mnist-made ")
    assert "imagenet256-mar-base" not in everything and "imagenet256-mar-base" in in_process("recipes", "imagenet256")
    assert "mnist-made-gpu" in mnist and "shakespeare" not in mnist
    assert in_process("recipes", "digits").startswith("mar train digits\n")
    assert refusal("recipes", "nothing-has-this")[1] == 2


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("train digitz", "unknown recipe 'digitz': did you mean 'digits'?"),
        ("train digits trian.iterations=3", "unknown recipe key 'trian': did you mean 'train'?"),
        ("train digits train.iteration=3", "did you mean 'train.iterations'?"),
        ("train digits iterations=3", "did you mean 'train.iterations'?"),
        ("score nl runs/x", "Did you mean 'nll'?"),
        ("train digits train.iterations=many", "recipe key 'train.iterations'"),
        ("train digits ordering=spirl", "did you mean 'spiral'?"),
        ("train digits ordering=spiral ordering.inwards=1", "did you mean 'inward'?"),
        ("train digits partition=cosine:100", "cosine:100 asks for more steps than the 64 tokens of 8x8 allow"),
        ("train digits network=masked-transformr", "did you mean 'masked-transformer'?"),
        ("train digits network.size=tny", "network.size"),
        ("train digits head=diffusion", "does not model categories"),
        ("train digits tokenizer=binary-patches", "17"),
        ("train digits tokenizer=patches tokenizer.patch=3 head=diffusion", "tokenizer.patch=1 or 2 or 4"),
        ("train digits data=mnist data.path=/nowhere", "/nowhere"),
        ("sample nowhere", "nowhere is not a run folder"),
        ("score nll nowhere", "nowhere is not a run folder"),
        ("orderings show spiral --grid 8y8", "a grid is written like 16x16"),
        ("orderings show spiraal --grid 8x8", "did you mean 'spiral'?"),
        ("ablate digit", "did you mean 'digits'?"),
        ("verify nowhere.py:Mine", "nowhere.py"),
        ("cache digits --tokenizer /nowhere", "holds no autoencoder of diffusers"),
        ("tokenizer train digits --channels 8,8,8,8,8", "8x8 images do not divide by 16"),
        ("train digits ordering=confidence", "it has no tractable likelihood"),
        ("train digits train.betas=[2,3]", "train.betas"),
        ("train digits --owt x", "--out"),
        ("trian digits", "train"),
        ("generate runs/x --precision fp64", "'fp32', 'bf16'"),
        ("sample runs/x --top-k 5", "is now written: mar sample --head top_k=K"),
    ],
)
def test_mistakes_get_one_line_and_code_two(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line, code = refusal(*arguments.split())
    assert code == 2 and said in line and "\n" not in line
    assert line.startswith("mar: ") and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", ["train digits trian.iterations=3", "train digits --owt x", "sample nowhere"])
def test_a_process_prints_the_line_alone_and_exits_with_two(arguments, tmp_path):
    done = mar(*arguments.split(), cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("mar: ") and not done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    in_process("train", "digits", *TINY, "--out", str(folder))
    return folder


def test_train_sample_and_score(run, tmp_path):
    assert (run / "samples" / "training-00000004.png").is_file()
    assert json.loads((run / "environment.json").read_text())["packages"]["torch"]
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"loss_nats_per_token", "validation_bits_per_dim"} <= set().union(*logged)

    # more images than the animation shows
    in_process(
        "sample", str(run), "-n", "66", "--class", "3", "--plan", "raster/equal:32", "--out", str(tmp_path / "many")
    )

    in_process("sample", str(run), "-n", "5", "--plan", "spiral/cosine:6", "--class", "3", "--guidance", "2",
               "--head", "top_k=5", "--out", str(tmp_path / "out"))  # fmt: skip
    images = np.load(tmp_path / "out" / "images.npz")["images"]
    assert images.shape == (5, 1, 8, 8) and images.max() <= 16
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == 5
    assert Image.open(tmp_path / "out" / "generation.gif").n_frames >= 6
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["head"] == {"top_k": 5}

    plans = "raster/equal:16,random/cosine:4"
    in_process("score", "nll", str(run), "--plans", plans, "--paired-with", "raster/equal:16", "-n", "8")
    scores = sorted((run / "scores").glob("nll-*.json"))
    assert len(scores) == 2
    record = json.loads((run / "scores" / "nll-random-cosine4-test-n8-exact.json").read_text())
    assert record["kind"] == "exact" and record["n_images"] == 8 and record["weights"] == "ema"
    assert record["data_fingerprint"] and record["paired"]["reference"] == "raster/equal:16"


def test_status_tells_loss_validation_scores_and_the_next_command(run, tmp_path):
    told = in_process("status", str(run))
    assert "4 of 4 iterations, loss " in told and "validation: " in told and f"next: mar sample {run}" in told
    copy = tmp_path / "unfinished"
    shutil.copytree(run, copy)
    recipe = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(recipe.replace("iterations: 4\n", "iterations: 40\n"))
    told, plain = in_process("status", str(copy)), json.loads(in_process("status", str(copy), "--json"))
    assert f"next: mar train {copy / 'recipe.yaml'} --out {copy}" in told and "min left" in told
    speed, left = plain["images_per_second"], plain["seconds_left"]
    assert (plain["iteration"], plain["iterations"]) == (4, 40) and left == pytest.approx(36 * 16 / speed)


def test_a_dry_run_says_when_the_machine_is_busy(monkeypatch, tmp_path):
    for load, busy in ((0.1, False), (1e6, True)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        told = in_process("ablate", "digits", "--dry-run", "orderings=[raster]", *TINY, "--out", str(tmp_path / "grid"))
        assert ("the machine is busy" in told) == busy and "min of training" in told


def test_inpainting_keeps_what_is_given(run, tmp_path):
    given = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:, 4:] = 255
    Image.fromarray(given).save(tmp_path / "given.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "out"
    in_process("sample", str(run), "-n", "3", "--image", str(tmp_path / "given.png"), "--mask",
               str(tmp_path / "mask.png"), "--out", str(out), "--no-gif")  # fmt: skip
    images = np.load(out / "images.npz")["images"][:, 0]
    expected = np.rint(given / 255 * 16).astype(np.uint8)
    assert (images[:, :, :4] == expected[:, :4]).all()
    assert len({image.tobytes() for image in images}) > 1

"""Training for 10 iterations equals training for 5, being killed, and resuming for 5: bit for bit on a CPU."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mar import config
from mar.core.errors import UserError
from mar.core.processes import Processes
from mar.run import train
from mar.training import checkpoint
from mar.training.loop import Trainer
from mar.training.run_folder import RunFolder
from tests.faults.processes import Running


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest, _ = checkpoint.latest(run / "checkpoints")
    assert newest is not None
    everything = load_file(newest.path / "model.safetensors")
    return everything | {f"ema.{k}": v for k, v in load_file(newest.path / "ema.safetensors").items()}


def assert_equal(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    different = [k for k in left if not torch.equal(left[k], right[k])]
    assert not different, different


def train_killed_and_resumed(overrides: list[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in iteration 8, after the checkpoint of 5, and started again."""
    step = Trainer.step

    def killed(self, batches):
        if self.iteration == 7:
            raise RuntimeError("killed")
        return step(self, batches)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(config.read("digits", overrides), path)
    monkeypatch.undo()
    newest, _ = checkpoint.latest(path / "checkpoints")
    assert newest is not None and newest.iteration == 5
    train(config.read("digits", overrides), path)


def test_a_killed_run_resumes_bit_for_bit_in_the_middle_of_an_epoch(tmp_path, tiny, monkeypatch):
    overrides = [*tiny, "data.validation=1000", "train.batch_size=48", "network.projection_dropout=0.1"]  # 437 examples
    train(config.read("digits", overrides), tmp_path / "whole")
    train_killed_and_resumed(overrides, tmp_path / "parts", monkeypatch)
    assert_equal(tmp_path / "whole", tmp_path / "parts")
    logged = [line["iteration"] for line in RunFolder(tmp_path / "parts").history() if "gradient_norm" in line]
    assert logged == list(range(1, 11)), "what was lost is logged once, when it happens again"


def test_accumulation_does_not_change_the_result(tmp_path, tiny):
    overrides = [*tiny, "network.projection_dropout=0", "network.attention_dropout=0", "train.iterations=3"]
    train(config.read("digits", overrides), tmp_path / "one")
    train(config.read("digits", [*overrides, "train.accumulation=4"]), tmp_path / "four")
    left, right = weights(tmp_path / "one"), weights(tmp_path / "four")
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-4, msg=name)


def launch(processes: int, run: Path, overrides: list[str]) -> None:
    running = Running(run / "logs", ["train", "digits", *overrides, "--out", str(run)], processes)
    assert running.wait() == [0] * processes, running.said


def test_two_processes_resume_bit_for_bit_and_agree_with_one(tmp_path, tiny):
    overrides = [*tiny, "network.projection_dropout=0", "network.attention_dropout=0"]
    launch(2, tmp_path / "whole", overrides)
    launch(2, tmp_path / "parts", [*overrides, "train.iterations=5"])
    launch(2, tmp_path / "parts", overrides)
    assert_equal(tmp_path / "whole", tmp_path / "parts")
    train(config.read("digits", overrides), tmp_path / "one")
    left, right = weights(tmp_path / "one"), weights(tmp_path / "whole")
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_the_same_command_goes_on(tmp_path, tiny, number):
    command = [sys.executable, "-m", "mar", "train", "digits", *tiny, "train.save_every=1000", "--out", str(tmp_path)]
    long = [*command, "train.iterations=100000"]
    process = subprocess.Popen(long, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and len(metrics.read_text().splitlines()) > 3):
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "Run the same command again to resume" in errors
    saved, _ = checkpoint.latest(tmp_path / "checkpoints")
    assert saved is not None and saved.iteration >= 3


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, recipe, capsys):
    train(recipe, tmp_path)
    newest, _ = checkpoint.latest(tmp_path / "checkpoints")
    assert newest.iteration == 10
    file = newest.path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))
    older, said = checkpoint.latest(tmp_path / "checkpoints")
    assert older.iteration == 5 and "does not match its checksum" in said[0]
    train(recipe, tmp_path)
    assert "passed over" in capsys.readouterr().out
    assert checkpoint.latest(tmp_path / "checkpoints")[0].iteration == 10


def test_a_later_damaged_checkpoint_does_not_cost_the_good_one(tmp_path, tiny):
    recipe = config.read("digits", [*tiny, "train.keep=1", "train.iterations=5"])
    train(recipe, tmp_path)
    damaged = tmp_path / "checkpoints" / "00000010"
    damaged.mkdir()
    train(config.read("digits", [*tiny, "train.keep=1", "train.iterations=7", "train.save_every=7"]), tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints")[0].iteration == 7


def test_weights_that_are_not_finite_are_never_saved(tmp_path, recipe, monkeypatch):
    clip, calls = Processes.clip, []

    def poisoned(self, module, norm):
        calls.append(norm)
        if len(calls) == 5:
            next(p for p in module.parameters() if p.grad is not None).grad.fill_(float("nan"))
        return clip(self, module, norm)

    monkeypatch.setattr(Processes, "clip", poisoned)
    with pytest.raises(UserError, match="iteration 5"):  # its loss was finite, its gradient was not
        train(recipe, tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints")[0] is None


def test_another_recipe_is_refused_in_the_same_folder(tmp_path, tiny, recipe):
    train(recipe, tmp_path)
    with pytest.raises(UserError, match=r"network.buffer is 1 there, 2 here"):
        train(config.read("digits", [*tiny, "network.buffer=2"]), tmp_path)


def test_two_runs_never_write_to_one_folder(tmp_path, recipe):
    with RunFolder(tmp_path).locked(), pytest.raises(UserError, match="another run is writing"):
        train(recipe, tmp_path)


def test_a_loss_that_is_not_finite_stops_with_the_iteration_and_the_last_good_checkpoint(tmp_path, recipe, monkeypatch):
    step = Trainer.step

    def poisoned(self, batches):
        loss, norm, rate = step(self, batches)
        return (loss * float("nan") if self.iteration == 6 else loss), norm, rate

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(UserError, match=r"iteration 7; the last good checkpoint is .*00000005; likely causes") as error:
        train(recipe, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_compiled_run_resumes_to_a_relative_error_of_1e_5(tmp_path, tiny):
    overrides = [*tiny, "train.compile=true", "network.projection_dropout=0", "network.attention_dropout=0"]
    train(config.read("digits", overrides), tmp_path / "whole")
    train(config.read("digits", [*overrides, "train.iterations=5"]), tmp_path / "parts")
    train(config.read("digits", overrides), tmp_path / "parts")
    left, right = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, value in left.items():
        error = float((value - right[name]).abs().max() / value.abs().max().clamp(min=1e-3))
        assert error <= 1e-5, f"{name}: {error:.1e}"

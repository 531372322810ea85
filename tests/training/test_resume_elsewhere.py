"""A training goes on after any signal of a cluster, from an exported run, and with another accumulation."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from mar import config
from mar.compat.hub import PretrainedRun
from mar.core.errors import Stopped, UserError
from mar.core.processes import Processes
from mar.run import load, train
from mar.training import checkpoint
from mar.training.loop import Trainer
from mar.training.run_folder import RunFolder
from tests.training.test_loop import assert_equal, weights

WITHOUT_DROPOUT = ["network.projection_dropout=0", "network.attention_dropout=0"]


def train_signalled(overrides: list[str], path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receive a signal in iteration 3."""
    step = Trainer.step

    def signalled(self, batches):
        if self.iteration == 2:
            os.kill(os.getpid(), number)
        return step(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", signalled)
        train(config.read("digits", overrides), path)


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU"])
def test_a_signal_of_a_cluster_saves_and_the_run_goes_on(tmp_path, tiny, monkeypatch, name):
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run below nohup
    try:
        with pytest.raises(Stopped) as stopped:
            train_signalled(tiny, tmp_path / "parts", number, monkeypatch)
    finally:
        signal.signal(number, before)
    assert stopped.value.signal == number
    newest, _ = checkpoint.latest(tmp_path / "parts" / "checkpoints")
    assert newest is not None and newest.iteration == 3
    train(config.read("digits", tiny), tmp_path / "parts")
    train(config.read("digits", tiny), tmp_path / "whole")
    assert_equal(tmp_path / "whole", tmp_path / "parts")


def test_an_ignored_signal_stays_ignored(tmp_path, tiny, monkeypatch):
    """nohup ignores SIGHUP: the training outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train_signalled([*tiny, "train.iterations=3"], tmp_path, signal.SIGHUP, monkeypatch)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_signals_are_a_setting_that_is_in_no_fingerprint(tiny):
    without = config.read("digits", [*tiny, "train.save_on=[SIGUSR2]"])
    assert without.train.save_on == ("SIGUSR2",) and without.fingerprint() == config.read("digits", tiny).fingerprint()
    assert "save_on" not in config.read("digits", tiny).as_dict()["train"]
    with pytest.raises(UserError, match="save_on"):
        config.read("digits", ["train.save_on=[SIGKILL]"])


def test_an_exported_run_is_trained_further(tmp_path, tiny, capsys):
    train(config.read("digits", [*tiny, "train.iterations=2"]), tmp_path / "run")
    PretrainedRun(tmp_path / "run", device="cpu").save_pretrained(tmp_path / "clone")
    recipe = config.read(str(tmp_path / "clone" / "recipe.yaml"), ["train.iterations=4"])
    train(recipe, tmp_path / "clone")
    run = load(tmp_path / "clone")
    assert run.checkpoint.iteration == 4 and "no moments of AdamW" in capsys.readouterr().out
    assert not any("unfinished" in line for line in run.warnings(run.training_plan))


def test_accumulation_may_change_on_the_way(tmp_path, tiny):
    recipe = [*tiny, *WITHOUT_DROPOUT, "train.schedule.kind=constant", "train.iterations=4"]
    train(config.read("digits", recipe), tmp_path / "whole")
    train(config.read("digits", [*recipe, "train.iterations=2"]), tmp_path / "parts")
    train(config.read("digits", [*recipe, "train.accumulation=4"]), tmp_path / "parts")
    left, right = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-4, msg=name)
    rates = [[line["learning_rate"] for line in RunFolder(tmp_path / run).history()] for run in ("whole", "parts")]
    assert rates[0] == rates[1]


def test_settings_of_accelerate_in_the_environment_change_nothing(monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_USE_MEGATRON_LM", "true")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    processes = Processes()
    assert processes.accelerator.gradient_accumulation_steps == 1
    said = capsys.readouterr().out
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4, ACCELERATE_USE_MEGATRON_LM=true" in said
    assert "DYNAMO" not in said


def test_metrics_are_json_also_where_a_number_is_not_finite(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log(iteration=1, validation_standard_error=float("nan"), gradient_norm=float("inf"), loss=2.5)
    line = folder.metrics.read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "iteration": 1, "validation_standard_error": None, "gradient_norm": None, "loss": 2.5,
    }  # fmt: skip

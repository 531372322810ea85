"""Trackers through accelerate: what they are given, that a resumed run goes on under its id, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from mar import config
from mar.cli.main import app
from mar.core.errors import UserError
from mar.run import train
from mar.training.run_folder import RunFolder

FAKE = """
import json, pathlib
from accelerate.tracking import GeneralTracker

class Fake(GeneralTracker):
    name, requires_logging_directory, tracker = "fake", True, None

    def __init__(self, project, path, **options):
        super().__init__()
        self.file = pathlib.Path(path) / "fake.jsonl"
        self.write("start", project)

    def write(self, *what):
        with self.file.open("a") as file:
            file.write(json.dumps(what) + chr(10))

    def store_init_configuration(self, values):
        self.write("recipe", values["train.batch_size"])

    def log(self, values, step=None, **kwargs):
        self.write("log", step, values)

    def log_images(self, values, step=None, **kwargs):
        self.write("images", step, list(values["samples"][0].shape))

    def finish(self):
        self.write("finish")

class Broken(Fake):
    def log(self, values, step=None, **kwargs):
        raise ConnectionError("no route")

class NoLogin(Fake):
    def store_init_configuration(self, values):
        raise RuntimeError("log in first")
"""


@pytest.fixture
def fake(tmp_path: Path) -> str:
    (tmp_path / "fakes.py").write_text(FAKE)
    return f"{tmp_path}/fakes.py"


def events(path: Path) -> EventAccumulator:
    found = EventAccumulator(str(path / "tensorboard"))
    found.Reload()
    return found


def test_tensorboard_has_the_curves_of_metrics_jsonl_the_recipe_and_samples(tmp_path, tiny):
    overrides = [*tiny, "train.sample_every=2"]
    train(config.read("digits", [*overrides, "train.iterations=2"]), tmp_path)
    train(config.read("digits", [*overrides, "train.iterations=4"]), tmp_path)
    found, lines = events(tmp_path), RunFolder(tmp_path).history()
    curve = [(event.step, event.value) for event in found.Scalars("loss_nats_per_token")]
    assert curve == [(line["iteration"], pytest.approx(line["loss_nats_per_token"])) for line in lines]
    assert [step for step, _ in curve] == [1, 2, 3, 4]
    assert [event.step for event in found.Images("samples")] == [2, 4]
    (recipe,) = found.Tensors("recipe/text_summary")
    assert b"batch_size: 16" in recipe.tensor_proto.string_val[0]
    assert not (tmp_path / "tracking.json").exists() and "trackers" not in config.read("digits").as_dict()["train"]


def test_a_tracker_of_ones_own_is_told_the_recipe_once_and_every_line(tmp_path, tiny, fake):
    overrides = [*tiny, f"train.trackers=[{fake}:Fake]", "train.sample_every=2"]
    train(config.read("digits", [*overrides, "train.iterations=2"]), tmp_path / "run")
    train(config.read("digits", [*overrides, "train.iterations=3"]), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "fake.jsonl").read_text().splitlines()]
    kinds = [line[0] for line in lines]
    assert kinds == ["start", "recipe", "log", "log", "images", "finish", "start", "log", "images", "finish"]
    assert lines[0][1] == "mar" and lines[1][1] == 16 and lines[4][1] == 2
    logged = [{"iteration": step, **values} for kind, step, *rest in map(tuple, (x for x in lines if x[0] == "log"))
              for values in rest]  # fmt: skip
    assert logged == RunFolder(tmp_path / "run").history()
    assert config.read("digits", overrides).fingerprint() == config.read("digits", [*tiny, overrides[-1]]).fingerprint()


def test_a_tracker_that_fails_is_said_once_and_training_goes_on(tmp_path, tiny, fake, capsys):
    train(config.read("digits", [*tiny, f"train.trackers=[{fake}:Broken]", "train.iterations=3"]), tmp_path / "run")
    assert capsys.readouterr().out.count("failed (no route); training goes on") == 1
    assert len(RunFolder(tmp_path / "run").history()) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wandbb", "did you mean 'wandb'"),
        ("clearml", "pip install clearml"),
        ("fakes.py:Missing", "Missing"),
        ("fakes.py:NoLogin", r"does not start \(log in first\)"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_one_line(name, words, tmp_path, tiny, fake):
    name = name.replace("fakes.py", fake)
    with pytest.raises(UserError, match=words) as error:
        train(config.read("digits", [*tiny, f"train.trackers=[{name}]"]), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_autoencoders_have_them_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["tokenizer", "train", "digits", "--channels", "8,8", "--iterations", "2", "--out", "run"]
    done = CliRunner().invoke(app, [*words, "--tracker", "tensorboard"])
    assert done.exit_code == 0, done.output
    (line,) = RunFolder(tmp_path / "run").history()
    (event,) = events(tmp_path / "run").Scalars("psnr_db")
    assert (event.step, event.value) == (2, pytest.approx(line["psnr_db"]))
    assert "unknown tracker" in str(CliRunner().invoke(app, [*words, "--tracker", "wandbb"]).exception)

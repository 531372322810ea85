"""``train.until=plateau``: a constant rate until the validation loss stands still, then a decay over the last fifth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mar import config
from mar.config import Schedule, Train
from mar.core.errors import UserError
from mar.run import load, train
from mar.training import checkpoint
from mar.training.loop import Trainer, learning_rate
from mar.training.run_folder import RunFolder
from tests.training.test_loop import assert_equal

PLATEAU = [
    "train.until=plateau", "train.schedule={kind: constant, warmup: 2}", "train.validate_every=1",
    "train.validation_examples=8",
]  # fmt: skip
FALLING = [(10 * k, 2.0 * 0.99 ** (10 * k)) for k in range(1, 101)]


def test_the_training_ends_a_quarter_after_a_quarter_without_gain() -> None:
    settings = Train(iterations=1000, until="plateau", validate_every=10, schedule=Schedule(warmup=10))
    flat = [(at, max(nats, 1.0)) for at, nats in FALLING]  # 2 · 0.99^t passes 1 at t = 69: 70 is the first at 1
    found = settings.length(flat)
    assert found == 125, "at 100 the best of the first 75 is 1 already, at 90 that of the first 67.5 is 1.02"
    assert settings.length(flat[:9]) == 1000, "not yet known"
    assert settings.length(FALLING) == 1000, "it falls to the end"
    assert settings.length(flat[:7]) == 1000, "too few validations to tell"
    assert Train(iterations=1000).length(flat) == 1000
    rising = [(at, nats if at < 60 else 5.0) for at, nats in FALLING]
    assert settings.length(rising) == 100, "at 80 the best is that of 50: it overfits"
    negative = [(at, nats - 9.0) for at, nats in flat]  # a density's nats
    assert settings.length(negative) == 125


def test_the_rate_is_constant_and_decays_over_the_last_fifth() -> None:
    settings = Train(iterations=1000, until="plateau", learning_rate=0.5)
    rates = [learning_rate(settings, iteration, 500) for iteration in range(500)]
    assert rates[49] == 0.25 and set(rates[99:401]) == {0.5}
    assert rates[450] == pytest.approx(0.25) and rates[499] == pytest.approx(0.005)


@pytest.fixture
def settled(tiny: list[str]) -> list[str]:
    """A recipe that hardly learns, so that the training ends at iteration 10 of at most 60."""
    return [*tiny, *PLATEAU, "train.learning_rate=1e-7", "train.iterations=60", "train.save_every=3"]


def test_a_killed_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, settled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, step = config.read("digits", settled), Trainer.step
    train(recipe, tmp_path / "whole")
    for at in (6, 8, 9):  # after a save, before the decay and in it
        with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
            patched.setattr(Trainer, "step", lambda self, batches, at=at: _killed(self, batches, at, step))
            train(recipe, tmp_path / "parts")
    train(recipe, tmp_path / "parts")
    assert_equal(tmp_path / "whole", tmp_path / "parts")
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    assert whole.validations() == parts.validations() and len(parts.validations()) == 10
    last = parts.history()[-2]
    assert last["iteration"] == 10 and last["learning_rate"] == pytest.approx(0.5e-7)
    run = load(parts.path)
    assert run.checkpoint.iteration == 10 and not any("unfinished" in line for line in run.warnings(run.training_plan))


def _killed(trainer: Trainer, batches: list, at: int, step) -> tuple[torch.Tensor, torch.Tensor, float]:
    if trainer.iteration == at:
        raise RuntimeError("killed")
    return step(trainer, batches)


def test_a_kill_between_a_checkpoint_and_its_validation_costs_no_validation(
    tmp_path: Path, settled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = config.read("digits", settled)
    train(recipe, tmp_path / "whole")

    def fails(self, progress, losses):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="out of memory"):
        patched.setattr("mar.training.job.ModelJob._validate", fails)
        train(config.read("digits", [*settled, "train.save_every=1"]), tmp_path / "parts")
    newest, _ = checkpoint.latest(tmp_path / "parts" / "checkpoints")
    assert newest is not None and newest.iteration == 1
    train(recipe, tmp_path / "parts")
    assert RunFolder(tmp_path / "whole").validations() == RunFolder(tmp_path / "parts").validations()
    assert_equal(tmp_path / "whole", tmp_path / "parts")


def test_best_and_last_weights_are_kept(tmp_path: Path, tiny: list[str]) -> None:
    recipe = config.read("digits", [*tiny, *PLATEAU, "train.learning_rate=0.3", "train.iterations=20", "seed=3"])
    train(recipe, tmp_path)
    curve = RunFolder(tmp_path).validations()
    best, last = load(tmp_path, weights="best"), load(tmp_path)
    assert best.checkpoint.iteration == min(curve, key=lambda at: at[1])[0] < last.checkpoint.iteration == curve[-1][0]
    assert load(tmp_path, weights="last").checkpoint == last.checkpoint
    with pytest.raises(UserError, match="best are averaged"):
        load(tmp_path, ema=False, weights="best")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["train.validate_every=0"], "set train.validate_every"),
        (["train.schedule.kind=cosine"], "set train.schedule.kind=constant"),
        (["train.scheduled_sampling.probability=0.5"], "set train.until=iterations"),
        (["ordering.kind=annealed"], "set train.until=iterations"),
    ],
)
def test_what_has_no_plateau_is_refused(tmp_path: Path, tiny: list[str], overrides: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        train(config.read("digits", [*tiny, *PLATEAU, *overrides]), tmp_path)


def test_other_recipes_keep_their_fingerprints(tiny: list[str]) -> None:
    assert not {"until", "plateau"} & config.read("digits", tiny).as_dict()["train"].keys()

"""Early stopping: a run with ``train.keep_best`` is read at its best validation."""

from __future__ import annotations

from mar import config
from mar.run import Run, train
from mar.training.run_folder import RunFolder

OVERRIDES = ["train.keep_best=true", "train.validate_every=2", "train.validation_examples=16"]


def test_scores_read_the_averaged_weights_of_best_validation(tmp_path, tiny):
    overrides = [text for text in tiny if not text.startswith("train.validate_every")] + OVERRIDES
    train(config.read("digits", [*overrides, "train.iterations=4"]), tmp_path)
    RunFolder(tmp_path).log(iteration=4, validation_nats_per_token=0.0)  # as if nothing after it were better
    train(config.read("digits", overrides), tmp_path)
    assert Run(tmp_path).checkpoint.iteration == 4
    assert Run(tmp_path, ema=False).checkpoint.iteration == 10


def test_recipes_without_it_keep_their_fingerprints(tiny):
    assert "keep_best" not in config.read("digits", tiny).as_dict()["train"]

"""``train.fid_every``: FID of the images that the averaged weights generate, in the curve and for ``keep_best``."""

from __future__ import annotations

import pytest
import torch

from mar import build, config, load
from mar.core.errors import UserError
from mar.metrics.fid import score_images, while_training
from mar.run import train
from mar.training.run_folder import RunFolder

EVERY = ["train.fid_every=4", "train.fid_images=16"]


class Falling:
    """Measures 3, 1, 2, … and keeps the images."""

    def __init__(self):
        self.images, self.values = [], [3.0, 1.0, 2.0, 0.5]

    def __call__(self, data, device):
        return self.measure

    def measure(self, images):
        self.images.append(images)
        return self.values[len(self.images) - 1]


def test_the_images_are_those_of_the_run_and_the_best_weights_those_of_lowest_fid(tmp_path, tiny):
    measured, overrides = Falling(), [*tiny, *EVERY, "train.keep_best=fid", "seed=3", "train.validate_every=4"]
    train(config.read("digits", overrides), tmp_path, fid=measured)
    assert RunFolder(tmp_path).logged("fid") == [(4, 3.0), (8, 1.0), (10, 2.0)]
    assert load(tmp_path).checkpoint.iteration == 8
    for weights, images in (("best", measured.images[1]), ("last", measured.images[2])):
        assert torch.equal(load(tmp_path, weights=weights).sample(16, seed=3), images)
    train(config.read("digits", [*overrides, "train.iterations=12"]), tmp_path, fid=measured)
    assert RunFolder(tmp_path).logged("fid")[-1] == (12, 0.5), "what was measured before is not measured again"
    assert load(tmp_path).checkpoint.iteration == 12


def test_it_is_the_fid_of_mar_score_against_validation(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = build.data(config.read("digits"))
    x = data.test.batch(torch.arange(40))[0]
    found = while_training(data, torch.device("cpu"))(x)
    assert found == score_images(x, data, tmp_path / "mar", on="validation").fid > 0


def test_what_cannot_be_measured_is_refused_before_the_training(tmp_path, tiny):
    with pytest.raises(UserError, match=r"pass fid=mar\.metrics\.fid\.while_training"):
        train(config.read("digits", [*tiny, *EVERY]), tmp_path)
    with pytest.raises(UserError, match=r"set train\.fid_every"):
        config.read("digits", ["train.keep_best=fid"])
    assert not {"fid_every", "fid_images"} & config.read("digits").as_dict()["train"].keys()

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mar.cli.options import Sampling
from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import Data, TensorSplit
from mar.metrics.fid import score_images, scorer_of
from mar.metrics.generated import score_source
from mar.metrics.images import BEFORE_TEST, FeatureSettings, Images, Statistics, images_of
from mar.metrics.protocols import PROTOCOLS, apply


def colours(n: int, start: int = 0) -> TensorSplit:
    x = torch.arange(start, start + n).to(torch.int32).remainder(251).to(torch.uint8)
    return TensorSplit(x[:, None, None, None].expand(n, 3, 32, 32), torch.arange(n) % 2)


@pytest.fixture
def cifar():
    """As many images as CIFAR-10 has, of one colour each; five for validation are cut off as there."""
    return Data("cifar10", DataSpec((3, 32, 32), 256, 2), colours(49_995), colours(5, 49_995), colours(10), "made")


def test_a_protocol_sets_number_split_and_features():
    n, split, features = apply("adm", None, "test", FeatureSettings())
    assert (n, split, features.extractor, features.spatial) == (50_000, "test", "inception", True)
    n, split, features = apply("cifar10", 50_000, "test", FeatureSettings())
    assert (n, split, features.extractor, features.spatial) == (50_000, BEFORE_TEST, "inception", False)
    assert apply("", 7, "test", FeatureSettings()) == (7, "test", FeatureSettings())
    for given, said in (
        (("cifar", None, "test", FeatureSettings()), "did you mean 'cifar10'"),
        (("adm", 1000, "test", FeatureSettings()), "takes 50,000 images"),
        (("adm", None, "test", FeatureSettings("classifier")), "Inception's features"),
    ):
        with pytest.raises(UserError, match=said):
            apply(*given)


def test_cifar10_is_compared_with_all_published_training_images(cifar):
    every = images_of(cifar, BEFORE_TEST)
    PROTOCOLS["cifar10"].check(every)
    seen = every.bytes(torch.tensor([49_996, 3, 49_994]))[:, 0, 0, 0]
    assert seen.tolist() == [value % 251 for value in (49_996, 3, 49_994)]
    for split in ("train", "test"):
        with pytest.raises(UserError, match="50,000 training images"):
            PROTOCOLS["cifar10"].check(images_of(cifar, split))


def test_adm_is_compared_with_its_file_alone(cifar):
    whole = Statistics(
        np.zeros(2), np.eye(2), images=images_of(cifar, "test"), spatial=Statistics(np.zeros(2), np.eye(2))
    )
    PROTOCOLS["adm"].check(whole)
    for other in (replace(whole, images=None), replace(whole, spatial=None), images_of(cifar, "test")):
        with pytest.raises(UserError, match=r"VIRTUAL_imagenet256_labeled\.npz"):
            PROTOCOLS["adm"].check(other)


def test_the_noise_floor_of_training_images_are_test_images(gaussian, pixels, tmp_path):
    scorer = scorer_of(images_of(gaussian, BEFORE_TEST), gaussian.spec, FeatureSettings(pixels), tmp_path)
    assert scorer.floor.name == "test" and len(scorer.real) == 2000


def test_fid_by_class_is_the_fid_of_the_images_of_a_class(gaussian, pixels, draw, tmp_path):
    label = torch.arange(1000) % 2
    labelled = replace(
        gaussian, spec=DataSpec((1, 2, 2), 256, 2, ("left", "right")), test=TensorSplit(gaussian.test.x, label)
    )
    x = torch.where(label[:, None, None, None] == 0, draw(1000, 120, 20, seed=9), draw(1000, 160, 20, seed=9))
    generated = TensorSplit(x, label)
    found = score_images(generated, labelled, tmp_path, extractor=pixels, by_class=True)
    assert found.by_class["left"] < 20 and found.by_class["right"] == pytest.approx(4 * 40**2, rel=0.1)
    alone = Images("right", TensorSplit(gaussian.test.x[1::2]), labelled.spec, "right")
    only = scorer_of(alone, labelled.spec, FeatureSettings(pixels), tmp_path, labelled)
    assert only.score(Images("g", TensorSplit(x[1::2]), labelled.spec)).fid == pytest.approx(found.by_class["right"])
    with pytest.raises(UserError, match="classes of the generated"):
        score_images(x, labelled, tmp_path, extractor=pixels, by_class=True)


def test_classes_are_given_by_number_or_name():
    spec = DataSpec((1, 2, 2), 256, 3, ("T-shirt", "10", "ankle boot"))
    assert Sampling(label=["2", "t-shirt", "Ankle Boot", "10"]).classes(spec) == (2, 0, 2, 10)
    with pytest.raises(UserError, match="did you mean 'ankle boot'"):
        Sampling(label=["ankle boat"]).classes(spec)
    assert Sampling().classes(spec) == ()


def test_the_protocol_is_named_beside_the_number(tmp_path, monkeypatch, gaussian):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(PROTOCOLS, "tiny", replace(PROTOCOLS["adm"], said="protocol tiny", fits=lambda reference: True))
    (tmp_path / "flat.py").write_text(
        "import torch\n\nclass Flat(torch.nn.Module):\n    def forward(self, x):\n        return x.flatten(1)\n"
    )
    for name, split in (("a", gaussian.train), ("b", gaussian.test)):
        np.savez(tmp_path / f"{name}.npz", arr_0=split.x[:50].permute(0, 2, 3, 1).numpy())
    settings, out = FeatureSettings(f"{tmp_path / 'flat.py'}:Flat"), tmp_path / "scores.json"
    found = score_source(str(tmp_path / "a.npz"), None, str(tmp_path / "b.npz"), "test", settings, out, "tiny")
    assert "protocol tiny" in found.tables[0].notes and json.loads(out.read_text())["protocol"] == "tiny"

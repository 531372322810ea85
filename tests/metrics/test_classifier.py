from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import TensorSplit
from mar.metrics.classifier import FEATURE_WIDTH, Classifier, train, trained_classifier, weight_hash


def test_it_reads_digits_and_its_name_says_how_well(digits, cache):
    trained = trained_classifier(digits, 17, cache)
    assert trained.test_accuracy >= 0.97
    assert trained.name == f"digits-classifier-acc{trained.test_accuracy:.3f}-{weight_hash(trained.model)}"
    byte = (digits.test.x.int() * 255 + 8) // 16
    _, logits = trained.model(byte)
    assert (logits.argmax(-1) == digits.test.label).double().mean().item() == pytest.approx(trained.test_accuracy)


def test_features_have_unit_variance_over_the_training_data(digits, cache):
    byte = (digits.train.x.int() * 255 + 8) // 16
    feature, _ = trained_classifier(digits, 17, cache).model(byte)
    assert feature.shape[1] == FEATURE_WIDTH <= 64
    assert feature.mean(0).abs().max() < 0.2 and (feature.std(0) - 1).abs().max() < 0.3


def test_training_twice_gives_the_same_weights(digits, tmp_path, brief_training):
    torch.manual_seed(1)
    first = trained_classifier(digits, 17, tmp_path / "a")
    state = torch.get_rng_state()
    second = trained_classifier(digits, 17, tmp_path / "b")
    assert first.name == second.name
    assert torch.equal(torch.get_rng_state(), state), "training used or changed the global generator"


def test_the_number_of_threads_changes_nothing(digits, brief_training):
    before = torch.get_num_threads()
    names = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            names.append(weight_hash(train(digits, 17)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert names[0] == names[1]


def test_a_classifier_is_trained_once_and_read_back_whole(digits, tmp_path, brief_training, monkeypatch):
    first = trained_classifier(digits, 17, tmp_path)
    monkeypatch.setattr("mar.metrics.classifier.train", None)
    again = trained_classifier(digits, 17, tmp_path)
    assert again.name == first.name and again.test_accuracy == first.test_accuracy
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_other_data_or_levels_train_another(digits, tmp_path, brief_training):
    names = {
        trained_classifier(digits, 17, tmp_path).name,
        trained_classifier(digits, 2, tmp_path).name,
        trained_classifier(replace(digits, fingerprint="other"), 17, tmp_path).name,
    }
    assert len(list(tmp_path.iterdir())) == 3
    assert len(names) == 2 and any("digits-2levels-classifier" in name for name in names)


def test_training_works_where_gradients_are_off(digits, tmp_path, brief_training):
    with torch.inference_mode():
        trained_classifier(digits, 17, tmp_path)


def test_a_last_batch_of_one_image_is_filled_up(digits, brief_training):
    few = replace(digits, train=TensorSplit(digits.train.x[:129], digits.train.label[:129]))
    assert all(bool(p.isfinite().all()) for p in train(few, 17).parameters())


def test_data_without_labels_say_what_to_pass(digits, tmp_path):
    with pytest.raises(UserError, match="--labelled"):
        trained_classifier(replace(digits, spec=DataSpec((1, 8, 8), 17)), 17, tmp_path)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (1, 28, 28), (1, 5, 64)])
def test_any_image_shape_gives_features_and_logits(shape):
    feature, logits = Classifier(shape, 10).eval()(torch.zeros(2, *shape, dtype=torch.uint8))
    assert feature.shape == (2, FEATURE_WIDTH) and logits.shape == (2, 10)

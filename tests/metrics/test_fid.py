from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import TensorSplit
from mar.metrics.classifier import trained_classifier
from mar.metrics.fid import FID, GeneratedImages, memory_of, score_images


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Heusel et al. 2017, eq. 6, with a matrix square root."""
    root = np.real(scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)))
    mean = np.square(a.mean(0) - b.mean(0)).sum()
    return float(mean + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root))


def byte(x: torch.Tensor) -> torch.Tensor:
    return (x.int() * 255 + 8) // 16


def test_fid_of_two_gaussians_is_the_closed_form(gaussian, pixels, draw, cache):
    result = score_images(draw(1000, 150, 40, seed=9), gaussian, cache, extractor=pixels)
    assert result.fid == pytest.approx(4 * (30**2 + 20**2), rel=0.05)  # Σ (μ₁ − μ₂)² + (σ₁ − σ₂)², four pixels


def test_fid_equals_the_matrix_square_root_on_the_features(digits, cache):
    trained = trained_classifier(digits, 17, cache)
    generated = digits.validation.x.repeat(2, 1, 1, 1).flip(3)
    result = score_images(generated, digits, cache)
    fake, real = (trained.model(byte(x))[0].double().numpy() for x in (generated, digits.test.x))
    assert result.extractor == trained.name
    assert result.fid == pytest.approx(frechet(fake, real), rel=1e-4)


def test_an_image_set_against_itself_is_at_zero(digits, cache):
    result = score_images(digits.test.x, digits, cache)
    assert result.fid == pytest.approx(0.0, abs=1e-5)
    assert result.generated.precision == result.generated.recall == 1.0
    assert result.generated.kid_mean <= 0.0  # unbiased, so a shared sample pulls it below
    assert any("at or below" in note for note in result.notes)


def test_the_order_of_generated_images_does_not_matter(digits, cache):
    generated = digits.train.x[:300]
    shuffled = generated[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    a, b = (score_images(x, digits, cache, batch_size=37).generated for x in (generated, shuffled))
    assert a.fid == pytest.approx(b.fid, rel=1e-5)
    assert (a.precision, a.recall) == (b.precision, b.recall)
    assert abs(a.kid_mean - b.kid_mean) < a.kid_std


def test_a_bad_generator_scores_above_the_noise_floor_everywhere(digits, cache):
    noise = torch.randint(0, 17, (360, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    result = score_images(noise, digits, cache)
    bad, floor = result.generated, result.noise_floor
    assert floor.n_images == bad.n_images == 360 and result.noise_floor_split == "train"
    assert 0.0 < floor.fid < 0.1 * bad.fid
    assert floor.kid_mean < 0.1 * bad.kid_mean
    assert floor.precision > 0.8 > 0.5 > bad.precision
    assert floor.recall > 0.6 > 0.2 > bad.recall
    assert floor.inception_score_mean > bad.inception_score_mean


def test_recall_falls_when_classes_are_missing_and_precision_does_not(digits, cache):
    zeros = digits.train.x[digits.train.label == 0]
    missing = score_images(zeros, digits, cache).generated
    assert missing.precision > 0.6 and missing.recall < 0.3


def test_the_noise_floor_is_scored_like_any_images(digits, cache):
    result = score_images(digits.train.x, digits, cache)  # as many as there are: the floor is all of them
    assert result.noise_floor.fid == pytest.approx(result.fid, rel=1e-6)
    assert result.noise_floor.precision == result.generated.precision


def test_the_same_call_gives_the_same_figures_from_a_warm_cache(digits, cache, tmp_path):
    generated = digits.train.x[:100]
    trained_classifier(digits, 17, cache)
    (tmp_path / "cold").mkdir()
    for file in cache.glob("classifier-*"):
        (tmp_path / "cold" / file.name).write_bytes(file.read_bytes())
    cold = score_images(generated, digits, tmp_path / "cold")
    assert score_images(generated, digits, tmp_path / "cold") == cold
    assert cold.to_dict()["generated"]["fid"] == cold.fid


def test_other_real_images_never_come_from_the_cache_of_these(gaussian, pixels, draw, tmp_path):
    generated = draw(500, 120, 20, seed=9)
    near = score_images(generated, gaussian, tmp_path, extractor=pixels)
    moved = replace(gaussian, test=TensorSplit(draw(1000, 160, 20, seed=3)), fingerprint="gaussian-1")
    assert score_images(generated, moved, tmp_path, extractor=pixels).fid > 100 * near.fid


def test_the_extractor_is_known_by_its_weights(digits, tmp_path, brief_training):
    one = score_images(digits.train.x[:50], digits, tmp_path)
    labelled = replace(digits, train=TensorSplit(digits.train.x[:700], digits.train.label[:700]), fingerprint="half")
    two = score_images(digits.train.x[:50], digits, tmp_path, labelled=labelled)
    assert one.extractor != two.extractor and one.fid != two.fid


def test_unlabelled_images_are_scored_by_a_classifier_of_labelled_ones(digits, tmp_path, brief_training):
    train, validation, test = (TensorSplit((s.x >= 8).byte()) for s in (digits.train, digits.validation, digits.test))
    binary = replace(
        digits, name="binary", spec=DataSpec((1, 8, 8), 2), train=train, validation=validation, test=test,
        fingerprint="binary",
    )  # fmt: skip
    with pytest.raises(UserError, match="no labels"):
        score_images(train.x[:50], binary, tmp_path)
    result = score_images(train.x[:50], binary, tmp_path, labelled=digits)
    assert result.extractor.startswith("digits-2levels-classifier-acc")
    with pytest.raises(UserError, match="shape"):
        score_images(train.x[:50], binary, tmp_path, labelled=replace(digits, spec=DataSpec((1, 4, 16), 17, 10)))


def test_scoring_on_the_training_split_takes_its_floor_from_test(gaussian, pixels, draw, tmp_path):
    result = score_images(draw(100, 120, 20, seed=9), gaussian, tmp_path, extractor=pixels, on="train")
    assert (result.split, result.noise_floor_split) == ("train", "test")
    assert result.noise_floor.fid > 0.0


def test_few_images_shrink_the_subsets_and_are_said_to_be_few(gaussian, pixels, draw, tmp_path):
    few = score_images(draw(8, 120, 20, seed=9), gaussian, tmp_path, extractor=replace(pixels, feature_width=8))
    assert (few.generated.n_images, few.kid_subset_size, few.inception_score_splits) == (8, 4, 2)
    assert any("biased" in note for note in few.notes)
    with pytest.raises(UserError, match="at least 8"):
        score_images(draw(7, 120, 20, seed=9), gaussian, tmp_path, extractor=pixels)


def test_an_unknown_split_is_named(gaussian, pixels, draw, tmp_path):
    with pytest.raises(UserError, match="did you mean 'test'"):
        score_images(draw(9, 120, 20, seed=9), gaussian, tmp_path, extractor=pixels, on="tests")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
def test_scores_on_a_gpu_are_those_of_a_cpu(digits, cache, tmp_path):
    generated = digits.train.x[:300].flip(3)
    cpu = score_images(generated, digits, cache).generated
    for file in cache.glob("classifier-*"):  # the same weights, features computed anew
        (tmp_path / file.name).write_bytes(file.read_bytes())
    gpu = score_images(generated, digits, tmp_path, device="cuda").generated
    assert gpu.fid == pytest.approx(cpu.fid, rel=1e-3) and gpu.kid_mean == pytest.approx(cpu.kid_mean, rel=1e-3)
    assert (gpu.precision, gpu.recall) == pytest.approx((cpu.precision, cpu.recall), abs=0.01)
    assert (
        gpu.balance is not None and cpu.balance is not None and gpu.balance.chi2 == pytest.approx(cpu.balance.chi2, 0.1)
    )


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("content", ["half", "empty", "a pickle", "other tensors", "fewer images"])
def test_a_damaged_or_foreign_file_of_the_cache_is_made_again(content, digits, tmp_path, brief_training, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generated, folder = digits.train.x[:60], tmp_path / "cache"
    whole = score_images(generated, digits, folder)
    files = {file: file.read_bytes() for file in folder.iterdir()}
    assert len(files) == 4 and {file.suffix for file in files} == {".safetensors"}, (
        "a classifier and three sets of features"
    )
    for file, before in files.items():
        if content == "other tensors":
            save_file({"other": torch.zeros(1)}, file)
        elif content == "fewer images":
            if file.name.startswith("classifier"):
                continue
            with safe_open(file, "pt") as stored:
                metadata = stored.metadata()
            save_file({"features": torch.zeros(3, 64), "logits": torch.zeros(3, 10)}, file, metadata)
        else:
            new = {"half": before[: len(before) // 2], "empty": b"", "a pickle": pickle.dumps(Harmful())}
            file.write_bytes(new[content])
        assert score_images(generated, digits, folder) == whole
        assert file.read_bytes() == before
    assert not (tmp_path / "harm").exists()


def test_pickled_features_of_earlier_versions_are_never_read(digits, tmp_path, brief_training, monkeypatch):
    monkeypatch.chdir(tmp_path)
    score_images(digits.train.x[:60], digits, tmp_path / "cache")
    for file in list((tmp_path / "cache").glob("*-features.safetensors")):
        for layer in ("features", "logits"):
            file.with_name(f"{file.stem}-{layer}.pt").write_bytes(pickle.dumps(Harmful()))
        file.unlink()
    score_images(digits.train.x[:60], digits, tmp_path / "cache")
    assert not (tmp_path / "harm").exists()


def test_scores_without_a_place_to_keep_features_are_the_same(digits, tmp_path, brief_training):
    kept = score_images(digits.train.x[:60], digits, tmp_path)
    assert score_images(digits.train.x[:60], digits, Path("/dev/null/cache")) == kept


def test_the_noise_floor_is_a_mean_over_draws(digits, cache):
    scored = score_images(digits.validation.x[:100], digits, cache)
    assert len(scored.noise_floor_fid) == 20 == len(set(scored.noise_floor_fid))
    assert scored.noise_floor_fid[0] == pytest.approx(scored.noise_floor.fid, rel=1e-6)  # the first draw
    assert FID.notes([GeneratedImages(scored)], {"fid": {"guidance": 1.0, "temperature": 1.0}})[0].count(
        "over 20 draws"
    )


def test_copies_lie_at_no_distance_from_the_training_images(digits):
    copies = memory_of(digits.train.x[100:140], digits, "test")
    assert copies.generated == copies.ratio == 0.0 < copies.unseen
    moved = digits.train.x[:3].clone()
    moved[:, :, 0, 0] = (moved[:, :, 0, 0].int() + 8) % 17  # one of 64 pixels, by 8 or 9 of 16 levels
    apart = (moved.float() - digits.train.x[:3].float()).square().mean((1, 2, 3)).sqrt().mean().item() / 16
    assert memory_of(moved, digits, "test").generated == pytest.approx(apart, rel=1e-6)
    assert memory_of(digits.test.x, digits, "test").ratio == 1.0

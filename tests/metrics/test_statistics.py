from __future__ import annotations

import math

import numpy as np
import pytest

from mar.core.errors import UserError
from mar.metrics.fid import NOT_SCORED, FidScorer, Images, images_of
from mar.metrics.images import Statistics, read_statistics, write_statistics


def test_fid_of_gaussians_is_the_closed_form():
    """Commuting covariances: |μ₁ − μ₂|² + Σ (√λ₁ − √λ₂)²."""
    from mar.metrics.features import fid

    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    a, b = np.array([1.0, 2.0, 3.0, 4.0, 0.5]), np.array([4.0, 0.1, 3.0, 9.0, 0.5])
    one = Statistics(np.zeros(5), rotation @ np.diag(a) @ rotation.T)
    two = Statistics(np.arange(5.0), rotation @ np.diag(b) @ rotation.T)
    assert fid(one, two) == pytest.approx(30.0 + np.square(np.sqrt(a) - np.sqrt(b)).sum(), rel=1e-9)
    assert fid(one, one) == pytest.approx(0.0, abs=1e-9)


def judges(gaussian, pixels, tmp_path):
    """The same real images as images, and as a statistics file."""
    real = images_of(gaussian, "test")
    whole = FidScorer(real, pixels, tmp_path)
    write_statistics(whole.statistics, tmp_path / "real.npz")
    return whole, FidScorer(read_statistics(tmp_path / "real.npz"), pixels, tmp_path)


def test_fid_against_a_statistics_file_is_that_against_its_images(gaussian, pixels, tmp_path):
    whole, of_file = judges(gaussian, pixels, tmp_path)
    generated = Images("generated", gaussian.validation, gaussian.spec)
    a, b = whole.score(generated), of_file.score(generated)
    assert a.fid == b.fid > 0 and a.n_real == b.n_real == 1000
    assert a.generated.inception_score_mean == b.generated.inception_score_mean
    assert math.isnan(b.generated.precision) and b.to_dict()["generated"]["kid_mean"] is None
    assert b.noise_floor is NOT_SCORED


def test_a_file_holds_adms_layout_and_files_of_adm_are_read(gaussian, pixels, tmp_path):
    judges(gaussian, pixels, tmp_path)
    with np.load(tmp_path / "real.npz") as stored:
        mu, sigma = stored["mu"], stored["sigma"]
    pixels_ND = gaussian.test.x.flatten(1).double().numpy()
    assert mu == pytest.approx(pixels_ND.mean(0)) and sigma == pytest.approx(np.cov(pixels_ND, rowvar=False))
    np.savez(tmp_path / "adm.npz", mu=mu.astype(np.float32), sigma=sigma, arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    found = read_statistics(tmp_path / "adm.npz")
    assert (found.extractor, found.n_images, found.mu_D.dtype) == ("", 0, np.float64)


def test_statistics_of_other_features_are_refused(pixels, tmp_path):
    with pytest.raises(UserError, match="of 3 features, pixels-for-tests has 4"):
        FidScorer(Statistics(np.zeros(3), np.eye(3)), pixels, tmp_path)
    with pytest.raises(UserError, match="are of inception"):
        FidScorer(Statistics(np.zeros(4), np.eye(4), "inception"), pixels, tmp_path)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mu": np.zeros(3)}, "'sigma'"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"sigma \(2, 2\)"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "not finite"),
        ({"mu": np.array([{}], dtype=object), "sigma": np.eye(1)}, "file.npz does not hold"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_statistics_are_refused_in_one_line(arrays, said, tmp_path):
    if arrays is not None:
        np.savez(tmp_path / "file.npz", **arrays)
    with pytest.raises(UserError, match=said):
        read_statistics(tmp_path / "file.npz")

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mar.core.errors import UserError
from mar.metrics.fid import FID, GeneratedImages, score_images, scorer_of
from mar.metrics.images import FeatureSettings, Images, Statistics, open_source, write_statistics


@pytest.fixture
def features():
    """The module, which imports torch_fidelity: two seconds of processor time."""
    import mar.metrics.features

    return mar.metrics.features


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_density_and_coverage_of_points_on_a_line(features):
    # real 0, 1, 3, 10 with k = 1: balls of radius 1, 1, 2, 7 around them
    real = column(0.0, 1.0, 3.0, 10.0)
    one = features.density_coverage(column(0.5, 2.0, 50.0), real, k=1)
    # 0.5 lies in the balls of 0 and 1; 2 in that of 3 (its distance to 1 is the radius: outside); 50 in none
    assert one == {"density": pytest.approx(3 / 3), "coverage": 3 / 4}
    assert features.density_coverage(real, real, k=1)["coverage"] == 1.0
    # an outlier's large ball holds many images: density counts each ball once for each image, above 1 where it is dense
    assert features.density_coverage(column(0.5, 0.5), real, k=1) == {"density": 4 / 2, "coverage": 2 / 4}


def test_cmmd_of_two_directions_is_the_closed_form(features):
    x, y = torch.tensor([[2.0, 0.0]] * 3), torch.tensor([[0.0, 7.0]] * 5)  # normalised: a squared distance of 2
    assert features.cmmd(x, y) == pytest.approx(1000 * 2 * (1 - math.exp(-2 / 200)))
    assert features.cmmd(x, x) == 0.0


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_fid_infinity_removes_the_bias_of_few_images(shift, features):
    width, n = 24, 1500
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 0] += shift
    generated = features.Features(x, x[:, :0], "normal")
    real = Statistics(np.zeros(width), np.eye(width), "normal")
    biased, found = features.fid(generated.statistics, real), features.fid_infinity(generated, real, 0)
    assert found == pytest.approx(shift**2, abs=0.06) and abs(found - shift**2) < 0.5 * abs(biased - shift**2) + 0.04


def test_scores_hold_density_and_what_is_asked(gaussian, pixels, draw, tmp_path):
    asked = {"extractor": replace(pixels, cmmd=True), "infinity": True}
    found = score_images(draw(400, 120, 20, seed=9), gaussian, tmp_path, **asked)
    assert found.generated.density == pytest.approx(1.0, abs=0.15) and found.generated.coverage > 0.7
    assert found.generated.cmmd is not None and found.generated.fid_infinity < found.fid
    far = score_images(draw(400, 220, 5, seed=9), gaussian, tmp_path, extractor=pixels).generated
    assert far.density < 0.01 > far.coverage and far.fid_infinity is far.cmmd is far.sfid is None
    titles = {column.title for column in FID.columns([GeneratedImages(found)])}
    assert {"density", "coverage", "FID∞", "CMMD"} <= titles and "sFID" not in titles


def test_sfid_compares_the_spatial_features_of_both_sides(gaussian, pixels, draw, tmp_path):
    """Spatial features of twice the pixels: four times their distance."""

    def network(image):
        value = image.double().flatten(1)
        return value, value[:, :2] / 64, 2 * value

    spatial = replace(pixels, load=lambda: network, spatial_width=4)
    generated = draw(500, 150, 40, seed=9)
    found = score_images(generated, gaussian, tmp_path, extractor=spatial)
    assert found.generated.sfid == pytest.approx(4 * found.fid, rel=1e-6)
    real = scorer_of(
        Images("test", gaussian.test, gaussian.spec, "g"), gaussian.spec, FeatureSettings(spatial), tmp_path
    )
    write_statistics(real.statistics, tmp_path / "real.npz")
    stored = scorer_of(open_source(str(tmp_path / "real.npz")), gaussian.spec, FeatureSettings(spatial), tmp_path)
    images = Images("generated", type(gaussian.test)(generated), gaussian.spec)
    assert stored.score(images).generated.sfid == pytest.approx(found.generated.sfid, rel=1e-9)
    bare = replace(real.statistics, spatial=None)
    with pytest.raises(UserError, match="leave out --sfid"):
        scorer_of(bare, gaussian.spec, FeatureSettings(spatial), tmp_path)
    with pytest.raises(UserError, match="of Inception"):
        score_images(generated, gaussian, tmp_path, spatial=True)


@pytest.mark.slow
def test_inceptions_spatial_features_are_seven_channels_of_mixed_6_rows_first(tmp_path, monkeypatch, features):
    from torch_fidelity import FeatureExtractorInceptionV3, feature_extractor_inceptionv3

    from mar.metrics.extractors import SPATIAL_WIDTH, inception

    with monkeypatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        whole = FeatureExtractorInceptionV3("random", ["2048"])
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    seen: list[torch.Tensor] = []
    whole.Mixed_6c.register_forward_hook(lambda *call: seen.append(call[-1]))
    feature_ND = whole(image)[0]
    found = inception(tmp_path / "weights.pth", spatial=True).network(image)
    expected = whole.Mixed_6d.branch1x1(seen[0])[:, :7]
    assert torch.equal(found[0], feature_ND) and found[2].shape == (2, SPATIAL_WIDTH) == (2, 2023)
    assert torch.equal(found[2].reshape(2, 17, 17, 7)[:, 3, 5], expected[:, :, 3, 5])

from __future__ import annotations

import os
import urllib.error
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import Data, TensorSplit
from mar.metrics.fid import score_images, scorer_of
from mar.metrics.images import FeatureSettings, Statistics
from mar.metrics.protocols import apply


@pytest.fixture
def extractors():
    """The module, which imports torch_fidelity: two seconds of processor time."""
    import mar.metrics.extractors

    return mar.metrics.extractors


def photographs(shape: tuple[int, int, int], n: int = 10) -> Data:
    generator = torch.Generator().manual_seed(0)
    splits = [TensorSplit(torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)) for _ in range(3)]
    return Data("photographs", DataSpec(shape, 256), *splits, fingerprint="photographs-0")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 32, 32), "inception"), ((3, 64, 40), "inception"), ((1, 32, 32), "classifier"), ((3, 28, 32), "classifier")],
)
def test_photographs_go_to_inception_and_small_or_grey_images_to_the_classifier(
    shape, expected, monkeypatch, tmp_path, extractors
):
    monkeypatch.setattr(extractors, "inception", lambda *_: "inception")
    monkeypatch.setattr(extractors, "of_classifier", lambda *_, **__: "classifier")
    assert extractors.choose(FeatureSettings(), photographs(shape), tmp_path) == expected


def test_offline_the_error_says_what_to_download_and_where_to_put_it(monkeypatch, tmp_path, extractors):
    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError) as caught:
        score_images(torch.zeros(10, 3, 32, 32, dtype=torch.uint8), photographs((3, 32, 32)), tmp_path)
    for part in (
        extractors.INCEPTION.url,
        "--features-weights",
        "--features classifier",
        str(tmp_path / "checkpoints" / extractors.INCEPTION.file),
    ):
        assert part in str(caught.value)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("content", [{"fc.weight": Harmful()}, {"weight": torch.zeros(2)}, None])
def test_a_file_that_is_not_inceptions_tensors_is_refused_unexecuted(content, tmp_path, monkeypatch, extractors):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    if content is None:
        file.write_bytes(b"not a checkpoint")
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match="does not hold"):
        extractors.inception(file)
    assert not (tmp_path / "harm").exists()


def test_a_missing_file_and_weights_for_a_classifier_are_refused(tmp_path, digits, extractors):
    with pytest.raises(UserError, match="no file"):
        extractors.inception(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="leave out"):
        extractors.choose(FeatureSettings(weights=tmp_path / "weights.pth"), digits, tmp_path)


@pytest.mark.slow
def test_inception_scores_grey_and_rgb_and_never_mixes_two_weight_files(tmp_path, monkeypatch):
    from torch_fidelity import FeatureExtractorInceptionV3, feature_extractor_inceptionv3

    files = [tmp_path / "one.pth", tmp_path / "two.pth"]
    with monkeypatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        for seed, file in enumerate(files):
            torch.manual_seed(seed)
            torch.save(FeatureExtractorInceptionV3("random", ["2048"]).state_dict(), file)
    data = photographs((3, 32, 32))
    results = [score_images(data.validation, data, tmp_path, weights=file) for file in files]
    assert results[0].extractor != results[1].extractor and results[0].fid != results[1].fid
    assert results[0].extractor.startswith("inception-v3-compat-")
    notes = " ".join(results[0].notes)
    assert "not the published" in notes and "2048 features" in notes
    same = score_images(data.test, data, tmp_path, weights=files[0])
    assert same.fid == pytest.approx(0.0, abs=1e-2 * results[0].fid)

    grey = replace(photographs((1, 32, 32)), name="grey", fingerprint="grey-0")
    assert score_images(grey.validation, grey, tmp_path, extractor="inception", weights=files[0]).fid > 0.0


def test_clean_resizing_is_pils_in_float_and_names_its_features(tmp_path, extractors, monkeypatch):
    x = photographs((3, 40, 24)).train.batch(torch.arange(3))[0]
    planes = [Image.fromarray(plane.float().numpy(), mode="F") for plane in x.flatten(0, 1)]
    wanted = np.stack([np.asarray(one.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255) for one in planes])
    wanted = torch.from_numpy(wanted).unflatten(0, (3, 3))
    assert torch.allclose(extractors.clean_resize(x, (299, 299)), wanted, atol=1e-4, rtol=0)

    class Resized(torch.nn.Module):  # Inception without its layers
        INPUT_IMAGE_SIZE = 299

        def __init__(self, *_, **__):
            super().__init__()

        def forward(self, image):
            resize = extractors.feature_extractor_inceptionv3.interpolate_bilinear_2d_like_tensorflow1x
            return resize(image.float(), size=(299, 299), align_corners=False), image

    monkeypatch.setattr(extractors, "FeatureExtractorInceptionV3", Resized)
    torch.save({"fc.weight": torch.zeros(1, 2048)}, weights := tmp_path / "weights.pt")
    plain, clean = (
        extractors.choose(FeatureSettings("inception", weights, resize=resize), photographs((3, 40, 24)), tmp_path)
        for resize in ("", "clean")
    )
    assert torch.allclose(clean.network(x)[0], wanted, atol=1e-4, rtol=0)
    assert (plain.network(x)[0] - wanted).abs().max() > 10  # bilinear without antialiasing; and no trace of the other
    assert clean.name == f"{plain.name}-clean" and "clean-fid" in clean.resizing and "clean-fid" not in plain.resizing
    assert FeatureSettings(resize="clean").identity != FeatureSettings().identity
    made = Statistics(np.zeros(2048), np.eye(2048), plain.name, 10, shape=(3, 40, 24))
    with pytest.raises(UserError, match=r"are of inception.*seen by inception.*-clean"):
        scorer_of(made, DataSpec((3, 40, 24), 256), FeatureSettings(clean), tmp_path)
    with pytest.raises(UserError, match="--resize clean is of Inception"):
        extractors.choose(FeatureSettings("classifier", resize="clean"), photographs((3, 8, 8)), tmp_path)
    with pytest.raises(UserError, match="leave out --resize clean"):
        apply("cifar10", None, "test", FeatureSettings(resize="clean"))

"""Batches of images and reference files in the layout of ADM's evaluator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import TensorSplit
from mar.metrics.fid import scorer_of
from mar.metrics.generated import score_source
from mar.metrics.images import FeatureSettings, Images, open_source, read_statistics, write_npz


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rows(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


@pytest.fixture
def adm(gaussian, tmp_path):
    """Statistics of other images than the hundred in ``arr_0``."""
    x = gaussian.test.x[:100]
    mu, sigma = np.full(4, 120.0), np.eye(4) * 400.0
    np.savez(tmp_path / "adm.npz", arr_0=rows(x), mu=mu, sigma=sigma, mu_s=2 * mu, sigma_s=4 * sigma)
    return tmp_path / "adm.npz"


def test_a_batch_of_images_is_its_images_in_order(tmp_path):
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    write_npz(Images("made", TensorSplit(x), DataSpec((3, 4, 5), 256)), tmp_path / "batch.npz")
    found = open_source(str(tmp_path / "batch.npz"))
    assert torch.equal(found.bytes(torch.arange(2)), x) and found.spec.shape == (3, 4, 5)
    assert found.split.batch(torch.arange(2))[1] is None
    np.savez(tmp_path / "labelled.npz", arr_0=rows(x), arr_1=np.array([7, 3]))
    labelled = open_source(str(tmp_path / "labelled.npz"))
    assert labelled.split.batch(torch.tensor([1]))[1].tolist() == [3] and labelled.identity == found.identity


def test_adms_file_gives_fid_by_mu_and_precision_by_arr_0(adm, gaussian, pixels, tmp_path):
    generated = gaussian.test.x[:100]
    images = Images("generated", TensorSplit(generated), gaussian.spec)
    found = scorer_of(open_source(str(adm)), gaussian.spec, FeatureSettings(pixels), tmp_path).score(images)
    assert found.generated.precision == found.generated.recall == 1.0 and found.n_compared == 100 and found.n_real == 0
    x = generated.flatten(1).double().numpy()
    mu, root = x.mean(0), np.linalg.eigvals(np.cov(x, rowvar=False) * 400.0).real
    expected = np.square(mu - 120).sum() + np.trace(np.cov(x, rowvar=False)) + 1600 - 2 * np.sqrt(root).sum()
    assert found.fid == pytest.approx(expected, rel=1e-9)
    assert read_statistics(adm).spatial.mu_D.tolist() == [240.0] * 4


def test_batches_are_scored_from_the_command_line(adm, gaussian, tmp_path, brief_training):
    np.savez(tmp_path / "samples.npz", arr_0=rows(gaussian.train.x[:60]))
    own = tmp_path / "flat.py"
    own.write_text(
        "import torch\n\nclass Flat(torch.nn.Module):\n    def forward(self, x):\n        return x.flatten(1)\n"
    )
    settings = FeatureSettings(f"{own}:Flat")
    (table,) = score_source(str(tmp_path / "samples.npz"), 50, str(adm), "test", settings, tmp_path / "s.json").tables
    assert table.title.startswith("50 images") and "against 100 of them" in table.notes[0]
    back = score_source(str(adm), None, str(tmp_path / "samples.npz"), "test", settings, None).tables[0]
    assert back.title.startswith("100 images")
    with pytest.raises(UserError, match="has 60 images, not 70"):
        score_source(str(tmp_path / "samples.npz"), 70, str(adm), "test", settings, None)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4, 3)), np.zeros((3, 4, 4, 2), np.uint8)]
)
def test_arrays_that_are_no_images_are_refused_in_one_line(array, tmp_path):
    np.savez(tmp_path / "file.npz", arr_0=array)
    with pytest.raises(UserError, match=r"arr_0 \(3, 4, 4"):
        open_source(str(tmp_path / "file.npz"))

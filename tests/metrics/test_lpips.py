from __future__ import annotations

import urllib.error

import pytest
import torch

from mar.core.errors import UserError


@pytest.fixture
def module():
    import mar.metrics.lpips

    return mar.metrics.lpips


def test_offline_lpips_says_what_to_fetch(module, monkeypatch, tmp_path):
    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(module, "SampleSimilarityLPIPS", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"weights-vgg16-lpips\.pth and .*vgg16-.*leave out --lpips") as caught:
        module.lpips(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16))
    assert str(tmp_path / "checkpoints") in str(caught.value)


def test_lpips_is_the_mean_over_pairs_and_names_its_weights(module, monkeypatch, tmp_path):
    class Planted(torch.nn.Module):
        def __init__(self, name):
            super().__init__()

        def forward(self, x, y):
            assert x.shape[1] == 3
            return (x.float() - y.float()).abs().mean((1, 2, 3))

    monkeypatch.setattr(module, "SampleSimilarityLPIPS", Planted)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights-vgg16-lpips.pth").write_bytes(b"")
    x = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 16, 16)
    found = module.lpips(x, torch.zeros_like(x), batch_size=2)
    assert found == (2.0, "lpips-vgg16-e3b0c442")  # the mean of 0..4; SHA-256 of nothing

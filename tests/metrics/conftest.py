"""Feature extractors and data whose scores are known."""

from __future__ import annotations

import pytest
import torch

from mar.core.spec import DataSpec
from mar.data.base import Data, TensorSplit
from mar.data.digits import Digits
from mar.metrics import classifier


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation-cache")


@pytest.fixture(scope="session")
def digits():
    return Digits.load(Digits.Options())


@pytest.fixture
def brief_training(monkeypatch):
    """Classifiers that are trained just enough to exist."""
    monkeypatch.setattr(classifier, "BUDGET", classifier.Budget(epochs=1, images=256))


@pytest.fixture(scope="session")
def pixels():
    """The 2 x 2 grey levels themselves as features, in float64; two of them as logits."""
    from mar.metrics.extractors import Extractor

    def network(image):
        value = image.double().flatten(1)
        return value, value[:, :2] / 64

    return Extractor("pixels-for-tests", 4, lambda: network)


def gaussian_levels(n: int, mean: float, std: float, seed: int) -> torch.Tensor:
    normal = torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return (mean + std * normal).round().clamp(0, 255).to(torch.uint8)


@pytest.fixture
def gaussian():
    """Independent grey levels from N(120, 20²), 1,000 in each split."""
    train, validation, test = (TensorSplit(gaussian_levels(1000, 120, 20, seed)) for seed in (1, 2, 3))
    return Data("gaussian", DataSpec((1, 2, 2), 256), train, validation, test, "gaussian-0")


@pytest.fixture
def draw():
    return gaussian_levels

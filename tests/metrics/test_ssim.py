from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from mar.metrics.ssim import ssim


def test_ssim_is_the_formula_of_wang_et_al_at_every_window():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (3, 2, 17, 14), generator=generator, dtype=torch.uint8)
    y = (x.float() + 40 * torch.randn(x.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def plane(a: np.ndarray, b: np.ndarray) -> float:
        def mean(v):
            return correlate(v, window, mode="constant")[5:-5, 5:-5]  # where the window is inside

        m, n = mean(a), mean(b)
        v, w, c = mean(a * a) - m**2, mean(b * b) - n**2, mean(a * b) - m * n
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        return float((((2 * m * n + c1) * (2 * c + c2)) / ((m**2 + n**2 + c1) * (v + w + c2))).mean())

    found = ssim(x, y, 255.0)
    for image in range(3):
        a, b = x[image].double().numpy(), y[image].double().numpy()
        assert float(found[image]) == pytest.approx(np.mean([plane(a[c], b[c]) for c in range(2)]), abs=1e-10)
    assert torch.allclose(ssim(x, x, 255.0), torch.ones(3, dtype=torch.float64))
    assert ssim(x[..., :10], x[..., :10], 255.0) is None

"""The structural similarity (SSIM) of reconstructions (Wang, Bovik, Sheikh & Simoncelli 2004).

N images · C channels · H height · W width
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_SIDE, _SIGMA = 11, 1.5  # of the Gaussian window
_K1, _K2 = 0.01, 0.03


def ssim(x_NCHW: torch.Tensor, y_NCHW: torch.Tensor, top: float) -> torch.Tensor | None:
    """Return SSIM_N (float64) of images in [0, top]; None below 11 x 11 pixels, where the window does not fit.

    Means are over the places of the whole window and over channels. Images are not halved first.
    """
    if min(x_NCHW.shape[2:]) < _SIDE:
        return None
    weight_S = torch.exp(-0.5 * ((torch.arange(_SIDE, dtype=torch.float64) - _SIDE // 2) / _SIGMA).square())
    weight_S /= weight_S.sum()

    def blurred(v_NCHW: torch.Tensor) -> torch.Tensor:
        v_M1HW = v_NCHW.reshape(-1, 1, *v_NCHW.shape[2:])
        return F.conv2d(F.conv2d(v_M1HW, weight_S[None, None, :, None]), weight_S[None, None, None])

    def of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, y, c_1, c_2 = x.double(), y.double(), (_K1 * top) ** 2, (_K2 * top) ** 2
        mean_x, mean_y = blurred(x), blurred(y)
        spread = blurred(x * x) + blurred(y * y) - mean_x**2 - mean_y**2
        shared = blurred(x * y) - mean_x * mean_y
        map_M1HW = (2 * mean_x * mean_y + c_1) * (2 * shared + c_2) / ((mean_x**2 + mean_y**2 + c_1) * (spread + c_2))
        return map_M1HW.reshape(len(x), -1).mean(1)

    return torch.cat([of(x, y) for x, y in zip(x_NCHW.split(64), y_NCHW.split(64), strict=True)])

"""Companding of sound to 256 levels (ITU-T G.711; van den Oord et al. 2016, WaveNet, Sec. 2.2).

f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu) of an amplitude x in [-1, 1], mu = 255, then 256 equal steps.
"""

from __future__ import annotations

import math

import torch

LEVELS = 256
_MU = LEVELS - 1


def encode(sample: torch.Tensor) -> torch.Tensor:
    """16-bit samples (any integer type) -> levels, uint8. Silence is 128."""
    x = sample.double() / 2**15
    f = x.sign() * torch.log1p(_MU * x.abs()) / math.log1p(_MU)
    return ((f + 1) / 2 * _MU + 0.5).floor().clamp(0, _MU).to(torch.uint8)


def decode(level: torch.Tensor) -> torch.Tensor:
    """Levels -> 16-bit samples, int16; ``encode`` gives the level back."""
    f = 2 * level.double() / _MU - 1
    x = f.sign() * torch.expm1(f.abs() * math.log1p(_MU)) / _MU
    return (x * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)

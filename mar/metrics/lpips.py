"""LPIPS of reconstructions: distances in features of VGG (Zhang et al. 2018), in torch-fidelity's port.

Importing this module imports torch_fidelity (seconds): import it inside the function that scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from mar.core import torchvision  # noqa: F401  (torch_fidelity imports torchvision)
from mar.core.devices import double
from mar.core.errors import UserError
from mar.core.files import checksum

# isort: split
from torch_fidelity.sample_similarity_lpips import URL_VGG16_LPIPS, SampleSimilarityLPIPS
from torchvision.models import VGG16_Weights

_LEAST_SIDE = 16  # VGG halves it four times


class Lpips(NamedTuple):
    """The mean over images, and the name of the network, with a hash of its weights."""

    mean: float
    network: str


def lpips(
    x_NCHW: torch.Tensor, y_NCHW: torch.Tensor, device: torch.device | str = "cpu", batch_size: int = 32
) -> Lpips:  # fmt: skip
    """Return LPIPS of pairs of uint8 images, 0..255; a single channel is repeated. Raises UserError: no weights."""
    if min(x_NCHW.shape[2:]) < _LEAST_SIDE:
        raise UserError(f"LPIPS needs images of at least {_LEAST_SIDE} x {_LEAST_SIDE} pixels: leave out --lpips")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    urls = URL_VGG16_LPIPS, VGG16_Weights.IMAGENET1K_V1.url
    try:
        network = SampleSimilarityLPIPS("lpips-vgg16").to(device)
    except OSError as error:  # URLError among them
        raise UserError(
            f"the weights of LPIPS could not be downloaded ({error}): fetch {' and '.join(urls)} elsewhere and put "
            f"them into {cache}, or leave out --lpips"
        ) from error
    total = 0.0
    for pair in zip(x_NCHW.split(batch_size), y_NCHW.split(batch_size), strict=True):
        x, y = (images.expand(-1, 3, -1, -1).to(device) for images in pair)
        total += float(double(network(x, y)).sum())
    hashes = [checksum(file)[:8] for url in urls if (file := cache / url.rsplit("/", 1)[-1]).is_file()]
    return Lpips(total / len(x_NCHW), "-".join(["lpips-vgg16", *hashes]))

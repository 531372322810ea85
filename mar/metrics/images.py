"""Images for feature extractors as 8-bit values 0..255, and statistics of their features in ADM's layout.

N images · C channels · H height · W width · D feature width
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import Split


def check_images(spec: DataSpec, what: str) -> None:
    """Raise unless ``spec`` describes images of 2 to 256 levels."""
    if spec.modality != "image" or len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
        raise UserError(
            f"{what} has examples of kind {spec.modality}, of shape {spec.shape}: FID needs images of shape (1 or 3, "
            "H, W)"
        )
    if not 2 <= spec.levels <= 256:
        raise UserError(f"{what} has {spec.levels} levels: FID needs images of 2 to 256 levels")


def requantise(x: torch.Tensor, levels: int, target: int) -> torch.Tensor:
    """Levels 0..levels-1 to the nearest of 0..target-1 on the same range (ties upward), as uint8; target <= 256.

    256 levels to 2 is the threshold at one half; 2 levels to 256 gives 0 and 255.
    """
    if levels == target:
        return x.to(torch.uint8)
    span = levels - 1
    return ((2 * x.to(torch.int32) * (target - 1) + span) // (2 * span)).to(torch.uint8)


class ImageSet(Dataset[torch.Tensor]):
    """A split, or some of its examples, as (C, H, W) uint8 images 0..255.

    Args:
        split: examples (C, H, W) of integer levels.
        spec: their shape and levels.
        rgb: repeat a single channel three times.
        index_N: the examples to show, in this order; None: all.
    """

    def __init__(self, split: Split, spec: DataSpec, *, rgb: bool = False, index_N: torch.Tensor | None = None) -> None:
        self.split, self.spec = split, spec
        self.channels = 3 if rgb else spec.shape[0]
        self.index_N = torch.arange(len(split)) if index_N is None else index_N

    def __len__(self) -> int:
        return len(self.index_N)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        """What torch's DataLoader calls: a whole batch at once."""
        x_NCHW, _ = self.split.batch(self.index_N[torch.as_tensor(numbers)])
        if tuple(x_NCHW.shape[1:]) != self.spec.shape:
            raise UserError(f"images of shape {tuple(x_NCHW.shape[1:])} cannot be scored as {self.spec.shape}")
        if int(x_NCHW.min()) < 0 or int(x_NCHW.max()) >= self.spec.levels:
            span = f"{int(x_NCHW.min())}..{int(x_NCHW.max())}"
            raise UserError(f"images have values {span}: expected levels 0..{self.spec.levels - 1}")
        x_NCHW = requantise(x_NCHW, self.spec.levels, 256)
        return list(x_NCHW.expand(-1, self.channels, -1, -1).unbind())


@dataclass(frozen=True)
class Statistics:
    """A Gaussian fitted to features, in float64.

    Attributes:
        extractor: name of the extractor, with a hash of its weights; "" where the file does not say, like ADM's.
        n_images: images that it was fitted to; 0 where the file does not say.
    """

    mu_D: np.ndarray
    sigma_DD: np.ndarray
    extractor: str = ""
    n_images: int = 0


def read_statistics(path: Path) -> Statistics:
    """Read ``mu`` and ``sigma``; ignore the other arrays of ADM's reference batches.

    Raises:
        UserError: not such a file.
    """
    wanted = "statistics are an .npz file with mu (D,) and sigma (D, D), as mar fid-stats and ADM write"
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not {"mu", "sigma"} <= set(stored.files):
                raise UserError(f"{path} has {', '.join(stored.files)}: {wanted}")
            mu_D, sigma_DD = stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)
            extractor = str(stored["extractor"]) if "extractor" in stored.files else ""
            n_images = int(stored["n_images"]) if "n_images" in stored.files else 0
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}): {wanted}") from None
    if mu_D.ndim != 1 or sigma_DD.shape != (len(mu_D), len(mu_D)):
        raise UserError(f"{path} has mu {mu_D.shape} and sigma {sigma_DD.shape}: {wanted}")
    if not (np.isfinite(mu_D).all() and np.isfinite(sigma_DD).all()):
        raise UserError(f"{path} has values that are not finite: {wanted}")
    return Statistics(mu_D, sigma_DD, extractor, n_images)


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write atomically. Readers of ADM's layout ignore the extra arrays ``extractor`` and ``n_images``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with aside.open("wb") as file:
        np.savez(
            file, mu=statistics.mu_D, sigma=statistics.sigma_DD, extractor=statistics.extractor,
            n_images=statistics.n_images,
        )  # fmt: skip
    os.replace(aside, path)

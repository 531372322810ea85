"""Statistics files in ADM's layout: mean and covariance of features, the arrays ``mu`` and ``sigma`` of an npz.

D feature width
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mar.core.errors import UserError
from mar.core.files import write_atomic


@dataclass(frozen=True)
class Statistics:
    """A Gaussian fitted to features, in float64.

    Attributes:
        extractor: name of the extractor, with a hash of its weights; "" where the file does not say, as ADM's do not.
        n_images: how many images it was fitted to; 0 where the file does not say.
    """

    mu_D: np.ndarray
    sigma_DD: np.ndarray
    extractor: str = ""
    n_images: int = 0


def read_statistics(path: Path) -> Statistics:
    """``mu`` and ``sigma`` of a file; whatever else ADM's reference batches hold is not looked at.

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
    """Write ADM's layout with the extra arrays ``extractor`` and ``n_images``, which its readers ignore."""

    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez(
                file, mu=statistics.mu_D, sigma=statistics.sigma_DD, extractor=statistics.extractor,
                n_images=statistics.n_images,
            )  # fmt: skip

    write_atomic(path, save)

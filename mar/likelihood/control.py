"""Control variates: the mean NLL of some images of a split, corrected by regression on statistics of all its images.

N scored images · M images of the split · P statistics · C, H, W channels, rows, columns · V levels

What an image costs depends on how full and how rough it is, which is cheap to know of every image. With z the
statistics, centred over all M images,

    mean_N [y - z beta],     beta fitted without the image (ten folds),

has the expectation of mean y (a regression estimator, Cochran 1977, ch. 7; fitting beta on other images leaves no bias
of its own), and the variance Var(y - z beta) / N + Var(z beta) / M: images are drawn twice (ch. 12).
"""

from __future__ import annotations

import math

import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import Split, evenly_spaced
from mar.likelihood.summary import Controlled, Likelihood, error_over_images, per_dimension
from mar.tokenizers.base import Tokenizer

_FOLDS = 10
_MARGINAL_IMAGES = 10_000
_LARGEST_TABLE = 2**24  # positions times levels


class Control:
    """The statistics of scored images and of all images of their split, computed before time is spent on a score.

    Raises:
        UserError: the examples are no images of levels, or the scored ones are too few for a regression.
    """

    def __init__(self, spec: DataSpec, train: Split, images: torch.Tensor, every: torch.Tensor) -> None:
        if spec.modality != "image" or not spec.levels or spec.latents is not None:
            raise UserError("control variates are statistics of images of integer levels: this data set has none")
        self.z_NP, self.all_MP = (statistics(spec.levels, train, x) for x in (images, every))
        least = max(2 * _FOLDS, 4 * self.z_NP.shape[1])
        if len(images) < least:
            raise UserError(f"control variates of {self.z_NP.shape[1]} statistics take at least {least} images")

    def correct(self, tokenizer: Tokenizer, found: Likelihood) -> Controlled:
        """Return the corrected mean; the part of the error that is not over images (shared orders) stays."""
        nats_N = torch.tensor(found.nats_of_image, dtype=torch.float64)
        over_images = error_over_images(nats_N)
        mean, error = found.nats_per_image, over_images
        if len(self.z_NP) < len(self.all_MP):
            mean, error = regress(nats_N, self.z_NP, self.all_MP)
        error = math.sqrt(error**2 + max(0.0, found.standard_error_nats**2 - over_images**2))
        bits, bits_error, *_ = per_dimension(tokenizer, mean, error).values()
        return Controlled(len(self.all_MP), mean, error, bits, bits_error)


def statistics(levels: int, train: Split, images: torch.Tensor) -> torch.Tensor:
    """z_NP (float64) of images (N, C, H, W) in levels: mean, deviation, roughness in four ways, and the NLL of
    independent pixels, whose probabilities are counted on the training split."""
    parts = []
    for x in images.split(1000):
        v = x.double() / (levels - 1)
        rough = [v.diff(n=n, dim=dim).abs().flatten(1).sum(1) for n in (1, 2) for dim in (2, 3) if v.shape[dim] > n]
        parts.append(torch.stack([v.flatten(1).mean(1), v.flatten(1).std(1, correction=0), *rough], 1))
    z_NP = torch.cat(parts)
    if images[0].numel() * levels > _LARGEST_TABLE:
        return z_NP
    return torch.cat([z_NP, _independent_nats(levels, train, images)[:, None]], 1)


def _independent_nats(levels: int, train: Split, images: torch.Tensor) -> torch.Tensor:
    length = images[0].numel()
    count_LV = torch.ones(length, levels, dtype=torch.float64)
    cell_L = torch.arange(length) * levels
    for index in evenly_spaced(len(train), _MARGINAL_IMAGES).split(1000):
        cell_NL = train.batch(index)[0].flatten(1).long() + cell_L
        count_LV += cell_NL.flatten().bincount(minlength=length * levels).reshape(length, levels)
    nats_V = -(count_LV / count_LV.sum(1, keepdim=True)).log().flatten()
    return torch.cat([nats_V[part.flatten(1).long() + cell_L].sum(1) for part in images.split(1000)])


def regress(nats_N: torch.Tensor, z_NP: torch.Tensor, all_MP: torch.Tensor) -> tuple[float, float]:
    """The mean of ``nats_N`` corrected to the M images, and its standard error."""
    scale_P = all_MP.std(0)
    kept_P = scale_P > 0.0
    z_NP, all_MP = ((z - all_MP.mean(0))[:, kept_P] / scale_P[kept_P] for z in (z_NP, all_MP))
    adjusted_N, slopes = nats_N.clone(), []
    for fold in range(_FOLDS):
        here_N = torch.arange(len(nats_N)) % _FOLDS == fold
        design = torch.cat([torch.ones(int((~here_N).sum()), 1, dtype=z_NP.dtype), z_NP[~here_N]], 1)
        slope_P = torch.linalg.lstsq(design, nats_N[~here_N, None], driver="gelsd").solution[1:, 0]
        adjusted_N[here_N] -= z_NP[here_N] @ slope_P
        slopes.append(slope_P)
    explained_M = all_MP @ torch.stack(slopes).mean(0)
    variance = adjusted_N.var() / len(nats_N) + explained_M.var() / len(all_MP)
    return float(adjusted_N.mean()), math.sqrt(float(variance))

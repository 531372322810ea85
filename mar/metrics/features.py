"""The features of a set of images, and the scores computed from them by torch-fidelity's formulas.

Importing this module imports torch_fidelity (seconds): import it inside the function that scores.

N images · D feature width · K classes
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from mar.core import torchvision  # noqa: F401  (torch_fidelity imports torchvision)
from mar.core.files import short
from mar.core.noise import stream
from mar.core.records import Part
from mar.metrics.extractors import Extractor
from mar.metrics.images import Images, Statistics

# isort: split
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

KID_SUBSETS = 100
_NEIGHBOURS = 5  # of density and coverage, as their authors chose
_SIZES = 15  # of draws, for the extrapolation of FID
_CMMD_SIGMA, _CMMD_SCALE = 10.0, 1000.0
_PRC_IMAGES = 1000  # distances to so many others at once: 80 MB beside 10,000, where torch-fidelity's default takes GB


@dataclass(frozen=True)
class Features:
    """Features of N images: feature_ND and logits_NK on the CPU, in the order of the images; those of sFID if asked."""

    feature_ND: torch.Tensor
    logits_NK: torch.Tensor
    extractor: str
    spatial_NS: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.feature_ND)

    @cached_property
    def statistics(self) -> Statistics:
        spatial = None if self.spatial_NS is None else self._fitted(self.spatial_NS)
        return replace(self._fitted(self.feature_ND), spatial=spatial)

    def _fitted(self, feature_ND: torch.Tensor) -> Statistics:
        found = fid_features_to_statistics(feature_ND.double())
        return Statistics(found["mu"], found["sigma"], self.extractor, len(self))


@torch.no_grad()
def extract(
    images: Images, extractor: Extractor, cache_dir: Path, device: torch.device | str = "cpu", batch_size: int = 64,
    index_N: torch.Tensor | None = None, drawn: str = "",
) -> Features:  # fmt: skip
    """Return the features of ``images``, kept in ``cache_dir`` if the images have an identity.

    Args:
        index_N: the images to take; None: all.
        drawn: identifies ``index_N``.
    """
    index_N = torch.arange(len(images.split)) if index_N is None else index_N
    question = {"images": f"{images.identity}-{len(index_N)}{drawn}", "extractor": extractor.name}
    name = re.sub(r"[^\w.-]", "_", "-".join(question.values()))
    kept = Part(cache_dir / f"{short(name, 200)}-features.safetensors") if images.identity else None
    tensors, answered = (kept and kept.read()) or ({}, {})
    layers: list[str] = ["features", "logits", *(["spatial"] if extractor.spatial_width else [])]
    if answered == question and all(len(tensors.get(layer, ())) == len(index_N) for layer in layers):
        return Features(tensors["features"], tensors["logits"], extractor.name, tensors.get("spatial"))
    parts = [extractor.network(images.bytes(index, extractor.rgb).to(device)) for index in index_N.split(batch_size)]
    columns = [torch.cat([part.cpu() for part in column]) for column in zip(*parts, strict=True)]
    tensors = dict(zip(layers, columns, strict=True))
    if kept is not None:
        with suppress(OSError):  # without a place to keep them, they are computed again the next time
            kept.write(tensors, question)
    return Features(tensors["features"], tensors["logits"], extractor.name, tensors.get("spatial"))


def fid(generated: Statistics, real: Statistics) -> float:
    """Return the squared Fréchet distance of two Gaussians (Heusel et al. 2017, eq. 6)."""
    a, b = ({"mu": s.mu_D, "sigma": s.sigma_DD} for s in (generated, real))
    return fid_statistics_to_metric(a, b, verbose=False)["frechet_inception_distance"]


def fid_infinity(generated: Features, real: Statistics, seed: int) -> float:
    """Return FID of infinitely many generated images: the intercept of a line through FID over 1/N.

    Chong & Forsyth 2020: 15 draws without replacement, of N/10 to N images. The bias of the real side stays.
    """
    sizes = np.linspace(len(generated) / 10, len(generated), _SIZES).round().astype(int).clip(2)
    found = []
    for k, size in enumerate(sizes):
        order_N = stream(seed, f"evaluation/fid-infinity/{k}", len(generated)).uniform(1)[:, 0].argsort(stable=True)
        drawn = replace(generated, feature_ND=generated.feature_ND[order_N[:size]], spatial_NS=None)
        found.append(fid(drawn.statistics, real))
    return float(np.polyfit(1 / sizes, found, 1)[1])


def density_coverage(generated_ND: torch.Tensor, real_MD: torch.Tensor, k: int = _NEIGHBOURS) -> dict[str, float]:
    """Return how many balls of real images a generated one lies in, over k, and the share of balls that hold any.

    A ball reaches from a real image to its k-th nearest real one (Naeem et al. 2020).
    """
    inside = covered = 0
    for part_BD in real_MD.split(_PRC_IMAGES):
        radius_B1 = torch.cdist(part_BD, real_MD).kthvalue(k + 1, keepdim=True).values  # the nearest is itself
        held_BN = torch.cdist(part_BD, generated_ND) < radius_B1
        inside, covered = inside + int(held_BN.sum()), covered + int(held_BN.any(1).sum())
    return {"density": inside / (k * len(generated_ND)), "coverage": covered / len(real_MD)}


def cmmd(generated_ND: torch.Tensor, real_MD: torch.Tensor) -> float:
    """Return 1,000 times the squared MMD of normalised embeddings, Gaussian kernel of width 10, diagonals included.

    Jayasumana et al. 2024, as their code.
    """
    x_ND, y_MD = (torch.nn.functional.normalize(one.double(), dim=1) for one in (generated_ND, real_MD))

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        sums = [torch.cdist(part, b).square().div(-2 * _CMMD_SIGMA**2).exp().sum() for part in a.split(_PRC_IMAGES)]
        return float(sum(sums)) / (len(a) * len(b))

    return _CMMD_SCALE * (kernel(x_ND, x_ND) + kernel(y_MD, y_MD) - 2 * kernel(x_ND, y_MD))


def distances(
    generated: Features, real: Features, subset: int, seed: int, device: torch.device | str
) -> dict[str, float]:
    """Return mean and spread of the squared MMD over random subsets (Bińkowski et al. 2018), the shares inside each
    other's 3-nearest-neighbour manifolds (Kynkäänniemi et al. 2019; not symmetric), and density and coverage."""
    pair = generated.feature_ND, real.feature_ND
    kid = kid_features_to_metric(
        *pair, kid_subsets=KID_SUBSETS, kid_subset_size=subset, rng_seed=seed, verbose=False
    )  # fmt: skip
    on_device = [feature_ND.to(device) for feature_ND in pair]
    shares = prc_features_to_metric(*on_device, save_cpu_ram=True, prc_batch_size=_PRC_IMAGES, verbose=False)
    found = {f"kid_{part}": kid[f"kernel_inception_distance_{part}"] for part in ("mean", "std")}
    return {
        **found,
        "precision": shares["precision"],
        "recall": shares["recall"],
        **density_coverage(on_device[0], on_device[1]),
    }


def inception_score(generated: Features, splits: int, seed: int) -> dict[str, float]:
    """Return mean and spread over ``splits`` (Salimans et al. 2016); nothing for features without classes."""
    if not generated.logits_NK.shape[1]:
        return {}
    return isc_features_to_metric(generated.logits_NK, splits, True, seed)

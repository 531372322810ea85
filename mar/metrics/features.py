"""The features of a set of images, and the scores computed from them by torch-fidelity's formulas.

Importing this module imports torch_fidelity (seconds): import it inside the function that scores.

N images · D feature width · K classes
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from mar.core import torchvision  # noqa: F401  (torch_fidelity imports torchvision)
from mar.core.files import short
from mar.core.records import Part
from mar.metrics.extractors import Extractor
from mar.metrics.images import Images, Statistics

# isort: split
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

KID_SUBSETS = 100
_PRC_IMAGES = 1000  # distances to so many others at once: 80 MB beside 10,000, where torch-fidelity's default takes GB


@dataclass(frozen=True)
class Features:
    """Features of N images: feature_ND and logits_NK on the CPU, in the order of the images."""

    feature_ND: torch.Tensor
    logits_NK: torch.Tensor
    extractor: str

    def __len__(self) -> int:
        return len(self.feature_ND)

    @cached_property
    def statistics(self) -> Statistics:
        found = fid_features_to_statistics(self.feature_ND.double())
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
    if answered == question and [len(tensors.get(key, ())) for key in ("features", "logits")] == [len(index_N)] * 2:
        return Features(tensors["features"], tensors["logits"], extractor.name)
    parts = [extractor.network(images.bytes(index, extractor.rgb).to(device)) for index in index_N.split(batch_size)]
    features, logits = (torch.cat([part.cpu() for part in column]) for column in zip(*parts, strict=True))
    if kept is not None:
        with suppress(OSError):  # without a place to keep them, they are computed again the next time
            kept.write({"features": features, "logits": logits}, question)
    return Features(features, logits, extractor.name)


def fid(generated: Statistics, real: Statistics) -> float:
    """Return the squared Fréchet distance of two Gaussians (Heusel et al. 2017, eq. 6)."""
    a, b = ({"mu": s.mu_D, "sigma": s.sigma_DD} for s in (generated, real))
    return fid_statistics_to_metric(a, b, verbose=False)["frechet_inception_distance"]


def distances(
    generated: Features, real: Features, subset: int, seed: int, device: torch.device | str
) -> dict[str, float]:
    """Return mean and spread of the squared MMD over random subsets (Bińkowski et al. 2018), and the shares inside each
    other's 3-nearest-neighbour manifolds (Kynkäänniemi et al. 2019; not symmetric)."""
    pair = generated.feature_ND, real.feature_ND
    kid = kid_features_to_metric(
        *pair, kid_subsets=KID_SUBSETS, kid_subset_size=subset, rng_seed=seed, verbose=False
    )  # fmt: skip
    on_device = (feature_ND.to(device) for feature_ND in pair)
    shares = prc_features_to_metric(*on_device, save_cpu_ram=True, prc_batch_size=_PRC_IMAGES, verbose=False)
    found = {f"kid_{part}": kid[f"kernel_inception_distance_{part}"] for part in ("mean", "std")}
    return {**found, "precision": shares["precision"], "recall": shares["recall"]}


def inception_score(generated: Features, splits: int, seed: int) -> dict[str, float]:
    """Return mean and spread over ``splits`` (Salimans et al. 2016); nothing for features without classes."""
    if not generated.logits_NK.shape[1]:
        return {}
    return isc_features_to_metric(generated.logits_NK, splits, True, seed)

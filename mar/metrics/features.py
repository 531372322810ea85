"""What an extractor sees in a set of images: features and logits of each, and what is computed from them.

N images · D feature width · K classes

The formulas are torch-fidelity's; this file decides what they are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mar.core import torchvision  # noqa: F401  (torch_fidelity imports torchvision)
from mar.metrics.extractors import Extractor
from mar.metrics.images import ImageSet
from mar.metrics.statistics import Statistics

# isort: split
import torch_fidelity
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torch_fidelity.utils import (
    create_feature_extractor,
    extract_featuresdict_from_input_id_cached,
    resolve_feature_layer_for_metric,
)

KID_SUBSETS = 100
_PRC_IMAGES = 1000  # distances to so many others at once: 80 MB beside 10,000, where torch-fidelity's default takes GB


@dataclass(frozen=True)
class Features:
    """Of N images: feature_ND and logits_NK on the CPU, in the order of the images."""

    feature_ND: torch.Tensor
    logits_NK: torch.Tensor
    extractor: str

    def __len__(self) -> int:
        return len(self.feature_ND)

    @cached_property
    def statistics(self) -> Statistics:
        found = fid_features_to_statistics(self.feature_ND.double())
        return Statistics(found["mu"], found["sigma"], self.extractor, len(self))


def extract(
    images: ImageSet,
    extractor: Extractor,
    cache_dir: Path,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    cache_name: str | None = None,
) -> Features:
    """Features of ``images``; with ``cache_name``, which identifies them, they are kept in ``cache_dir``."""
    layer = {
        metric: resolve_feature_layer_for_metric(metric, feature_extractor=extractor.name) for metric in ("fid", "isc")
    }
    options: dict[str, Any] = {
        "input1": images,
        "input1_cache_name": cache_name,
        "cache_root": str(cache_dir),
        "cuda": torch.device(device).type == "cuda",
        "batch_size": batch_size,
        "save_cpu_ram": True,  # no loader workers
        "feature_extractor_weights_path": None if extractor.weights is None else str(extractor.weights),
        "verbose": False,
    }
    wanted = list(dict.fromkeys(layer.values()))
    found = extract_featuresdict_from_input_id_cached(
        1, create_feature_extractor(extractor.name, wanted, **options), **options
    )
    return Features(found[layer["fid"]], found[layer["isc"]], extractor.name)


def fid(generated: Statistics, real: Statistics) -> float:
    """Squared Fréchet distance of two Gaussians (Heusel et al. 2017, eq. 6)."""
    a, b = ({"mu": s.mu_D, "sigma": s.sigma_DD} for s in (generated, real))
    return fid_statistics_to_metric(a, b, verbose=False)[torch_fidelity.KEY_METRIC_FID]


def kid(generated: Features, real: Features, subset: int, seed: int) -> tuple[float, float]:
    """Mean and spread of the squared MMD over random subsets (Bińkowski et al. 2018)."""
    found = kid_features_to_metric(
        generated.feature_ND, real.feature_ND, kid_subsets=KID_SUBSETS, kid_subset_size=subset, rng_seed=seed,
        verbose=False,
    )  # fmt: skip
    return found[torch_fidelity.KEY_METRIC_KID_MEAN], found[torch_fidelity.KEY_METRIC_KID_STD]


def inception_score(generated: Features, splits: int, seed: int) -> tuple[float, float]:
    """Mean and spread over ``splits`` (Salimans et al. 2016)."""
    found = isc_features_to_metric(generated.logits_NK, splits, True, seed)
    return found[torch_fidelity.KEY_METRIC_ISC_MEAN], found[torch_fidelity.KEY_METRIC_ISC_STD]


def precision_recall(generated: Features, real: Features, device: torch.device | str) -> tuple[float, float]:
    """Shares inside each other's 3-nearest-neighbour manifolds (Kynkäänniemi et al. 2019); not symmetric."""
    on_device = (features.feature_ND.to(device) for features in (generated, real))
    found = prc_features_to_metric(*on_device, save_cpu_ram=True, prc_batch_size=_PRC_IMAGES, verbose=False)
    return found[torch_fidelity.KEY_METRIC_PRECISION], found[torch_fidelity.KEY_METRIC_RECALL]


def classes_of(generated: Features, extractor: Extractor) -> np.ndarray:
    """(N,) the likeliest class of each image; of an extractor that knows classes."""
    first, count = extractor.first_class, extractor.n_classes
    return generated.logits_NK[:, first : first + count].argmax(1).numpy()

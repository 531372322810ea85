"""Feature extractors, the features of a set of images, and the scores computed from them by torch-fidelity's formulas.

Importing this module imports torch_fidelity (seconds): import it inside the function that scores.

N images · D feature width · K classes
"""

from __future__ import annotations

import copy
import urllib.error
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from mar.core import torchvision  # noqa: F401  (torch_fidelity imports torchvision)
from mar.core.errors import UserError
from mar.core.files import checksum
from mar.data.base import Data
from mar.metrics.classifier import FEATURE_WIDTH, TrainedClassifier, trained_classifier
from mar.metrics.images import ImageSet, Statistics

# isort: split
import torch_fidelity
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import (
    create_feature_extractor,
    extract_featuresdict_from_input_id_cached,
    resolve_feature_layer_for_metric,
)

KID_SUBSETS = 100
_PRC_IMAGES = 1000  # distances to so many others at once: 80 MB beside 10,000, where torch-fidelity's default takes GB
INCEPTION_WIDTH = 2048
_IMAGENET_CLASSES = 1000
INCEPTION_FILE = URL_INCEPTION_V3.rsplit("/", 1)[-1]
_PUBLISHED_HASH = INCEPTION_FILE.removesuffix(".pth").rsplit("-", 1)[-1]


@dataclass(frozen=True)
class Extractor:
    """A registered feature extractor.

    Attributes:
        name: in torch-fidelity's registry; contains a hash of the weights, because features are cached under it.
        feature_width: dimensions of the features that FID compares.
        rgb: it wants three channels.
        weights: a file to load, or None.
        n_classes: among its logits, from ``first_class`` on; 0: they mean no classes of the data.
        knows_labels: class k of the logits is label k of the data.
        notes: printed below its scores.
    """

    name: str
    feature_width: int
    rgb: bool = False
    weights: Path | None = None
    n_classes: int = 0
    first_class: int = 0
    knows_labels: bool = False
    notes: tuple[str, ...] = ()


def choose(
    kind: Literal["auto", "inception", "classifier"],
    data: Data,
    cache_dir: Path,
    weights: Path | None = None,
    labelled: Data | None = None,
) -> Extractor:
    """Return Inception for RGB images of at least 32 x 32 pixels, otherwise the classifier of the data; or ``kind``.

    Args:
        data: the scored images.
        cache_dir: where a classifier is kept.
        weights: Inception's weights; None: torch's own cache of downloads, filled if need be.
        labelled: images and labels to train the classifier on, of the same shape; None: ``data`` itself.

    Raises:
        UserError: the weights cannot be had, or there is nothing to train the classifier on.
    """
    channels, height, width = data.spec.shape
    if kind == "inception" or (kind == "auto" and channels == 3 and min(height, width) >= 32):
        found = inception(weights)
        if data.spec.n_classes != _IMAGENET_CLASSES:
            return found
        return replace(found, n_classes=_IMAGENET_CLASSES, first_class=1)  # 0 is background, those after 1,000 empty
    if weights is not None:
        raise UserError(
            f"weights are Inception's, but {data.name!r} is scored by a classifier of its own: leave out one"
        )
    source = data if labelled is None else labelled
    if source.spec.shape != data.spec.shape:
        raise UserError(
            f"the FID classifier of {source.name!r} takes images of shape {source.spec.shape}, not {data.spec.shape}: "
            f"choose labelled images of the shape of {data.name!r}"
        )
    return from_classifier(trained_classifier(source, data.spec.levels, cache_dir), labelled is None)


def from_classifier(trained: TrainedClassifier, knows_labels: bool = True) -> Extractor:
    """Register a trained classifier: the Inception score reads its logits, everything else its features."""

    class ClassifierExtractor(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: object) -> None:
            super().__init__(name, features_list)
            self.model = copy.deepcopy(trained.model)  # it may be moved to a device

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:
            feature_ND, logits_NK = self.model(input)
            # float64, so that the sums behind mean and covariance do not depend on the order of the images
            given = {"features": feature_ND.double(), "logits": logits_NK.double()}
            return tuple(given[name] for name in self.features_list)

    register(trained.name, ClassifierExtractor)
    return Extractor(
        trained.name, FEATURE_WIDTH, n_classes=trained.model.logits.out_features, knows_labels=knows_labels
    )


def inception(weights: Path | None) -> Extractor:
    """Return torch-fidelity's port of the Inception of the original FID (float32, 2048 features)."""
    path = _downloaded() if weights is None else weights
    digest = _verified_hash(path)
    name = f"inception-v3-compat-{digest}"
    register(name, torch_fidelity.FeatureExtractorInceptionV3)
    notes = ()
    if digest != _PUBLISHED_HASH:
        notes = (f"the Inception weights {path.name} are not the published ones: compare with no published FID",)
    return Extractor(name, INCEPTION_WIDTH, rgb=True, weights=path, notes=notes)


def register(name: str, extractor: type) -> None:
    """Register a subclass of torch_fidelity.FeatureExtractorBase, once: the name identifies class and weights."""
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor(name, extractor)


def _downloaded() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), progress=False)
        except (urllib.error.URLError, OSError) as error:
            raise UserError(
                f"the Inception weights could not be downloaded ({error}): fetch {URL_INCEPTION_V3} elsewhere and "
                f"give its path (--inception-weights FILE), or put it at {path}"
            ) from error
    return path


def _verified_hash(path: Path) -> str:
    """Return the first eight digits of the file's SHA-256; refuse a file that holds anything but tensors.

    torch-fidelity unpickles the file without restrictions; this refuses one that could do harm there.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: the Inception weights are {URL_INCEPTION_V3}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        width = cast(dict[str, torch.Tensor], state)["fc.weight"].shape[1]
    except Exception as error:  # unpickling raises anything
        raise UserError(f"{path} does not hold torch-fidelity's Inception weights: get {URL_INCEPTION_V3}") from error
    if width != INCEPTION_WIDTH:
        raise UserError(f"{path} does not hold torch-fidelity's Inception weights: get {URL_INCEPTION_V3}")
    return checksum(path)[:8]


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


def extract(
    images: ImageSet,
    extractor: Extractor,
    cache_dir: Path,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    cache_name: str | None = None,
) -> Features:
    """Return features of ``images``; with ``cache_name``, which identifies them, keep the features in ``cache_dir``."""
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
    """Return the squared Fréchet distance of two Gaussians (Heusel et al. 2017, eq. 6)."""
    a, b = ({"mu": s.mu_D, "sigma": s.sigma_DD} for s in (generated, real))
    return fid_statistics_to_metric(a, b, verbose=False)[torch_fidelity.KEY_METRIC_FID]


def kid(generated: Features, real: Features, subset: int, seed: int) -> tuple[float, float]:
    """Return mean and spread of the squared MMD over random subsets (Bińkowski et al. 2018)."""
    found = kid_features_to_metric(
        generated.feature_ND, real.feature_ND, kid_subsets=KID_SUBSETS, kid_subset_size=subset, rng_seed=seed,
        verbose=False,
    )  # fmt: skip
    return found[torch_fidelity.KEY_METRIC_KID_MEAN], found[torch_fidelity.KEY_METRIC_KID_STD]


def inception_score(generated: Features, splits: int, seed: int) -> tuple[float, float]:
    """Return mean and spread over ``splits`` (Salimans et al. 2016)."""
    found = isc_features_to_metric(generated.logits_NK, splits, True, seed)
    return found[torch_fidelity.KEY_METRIC_ISC_MEAN], found[torch_fidelity.KEY_METRIC_ISC_STD]


def precision_recall(generated: Features, real: Features, device: torch.device | str) -> tuple[float, float]:
    """Return the shares inside each other's 3-nearest-neighbour manifolds (Kynkäänniemi et al. 2019); not symmetric."""
    on_device = (features.feature_ND.to(device) for features in (generated, real))
    found = prc_features_to_metric(*on_device, save_cpu_ram=True, prc_batch_size=_PRC_IMAGES, verbose=False)
    return found[torch_fidelity.KEY_METRIC_PRECISION], found[torch_fidelity.KEY_METRIC_RECALL]


def classes_of(generated: Features, extractor: Extractor) -> np.ndarray:
    """Return the likeliest class of each image (N,), of an extractor with classes."""
    first, count = extractor.first_class, extractor.n_classes
    return generated.logits_NK[:, first : first + count].argmax(1).numpy()

"""Feature extractors, the features of a set of images, and the scores computed from them by torch-fidelity's formulas.

Importing this module imports torch_fidelity (seconds): import it inside the function that scores.

N images · D feature width · K classes
"""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mar.core import torchvision  # noqa: F401  (torch_fidelity imports torchvision)
from mar.core.errors import UserError
from mar.core.files import checksum, short
from mar.core.records import Part
from mar.data.base import Data
from mar.metrics.classifier import FEATURE_WIDTH, trained_classifier
from mar.metrics.images import FeatureSettings, Images, Statistics, load_data

# isort: split
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

KID_SUBSETS = 100
_PRC_IMAGES = 1000  # distances to so many others at once: 80 MB beside 10,000, where torch-fidelity's default takes GB
INCEPTION_WIDTH = 2048
_IMAGENET_CLASSES = 1000
INCEPTION_FILE = URL_INCEPTION_V3.rsplit("/", 1)[-1]
_PUBLISHED_HASH = INCEPTION_FILE.removesuffix(".pth").rsplit("-", 1)[-1]

Network = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # uint8 (N, C, H, W) -> features, logits


@dataclass(frozen=True)
class Extractor:
    """A network whose features are compared; its logits give the Inception score and the classes."""

    name: str  # contains a hash of the weights: features are kept under it
    feature_width: int
    load: Callable[[], Network]
    rgb: bool = False  # it takes three channels
    n_classes: int = 0  # among its logits, from ``first_class`` on; 0: they are no classes of the data
    first_class: int = 0
    knows_labels: bool = False  # class k of the logits is label k of the data
    notes: tuple[str, ...] = ()  # printed below its scores

    @cached_property
    def network(self) -> Network:
        return self.load()


def choose(settings: FeatureSettings, data: Data, cache_dir: Path) -> Extractor:
    """Return Inception for RGB images of at least 32 x 32 pixels, otherwise a classifier; or what the settings name.

    Args:
        data: the scored images; it trains the classifier unless ``settings.labelled`` does.
        cache_dir: where a classifier is kept.

    Raises UserError: the weights cannot be had, or there is nothing to train the classifier on.
    """
    kind, (channels, height, width) = settings.extractor, data.spec.shape
    if isinstance(kind, Extractor):
        return kind
    if kind == "inception" or (kind == "auto" and channels == 3 and min(height, width) >= 32):
        found = inception(settings.weights)
        if data.spec.n_classes != _IMAGENET_CLASSES:
            return found
        return replace(found, n_classes=_IMAGENET_CLASSES, first_class=1)  # 0 is background, those after 1,000 empty
    if settings.weights is not None:
        raise UserError(
            f"weights are Inception's, but {data.name!r} is scored by a classifier of its own: leave out one"
        )
    labelled = settings.labelled or data
    source = load_data(labelled, data.spec) if isinstance(labelled, str) else labelled
    if source.spec.shape != data.spec.shape:
        raise UserError(
            f"the FID classifier of {source.name!r} takes images of shape {source.spec.shape}, not {data.spec.shape}: "
            f"choose labelled images of the shape of {data.name!r}"
        )
    return of_classifier(source, data.spec.levels, cache_dir, knows_labels=not settings.labelled)


def of_classifier(data: Data, levels: int, cache_dir: Path, knows_labels: bool) -> Extractor:
    """Return the features and logits of the classifier of ``data`` requantised to ``levels``."""
    trained = trained_classifier(data, levels, cache_dir)

    def network(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        feature_ND, logits_NK = trained.model.to(image.device)(image)
        # float64, so that the sums behind mean and covariance do not depend on the order of the images
        return feature_ND.double(), logits_NK.double()

    return Extractor(
        trained.name, FEATURE_WIDTH, lambda: network, n_classes=data.spec.n_classes, knows_labels=knows_labels
    )


def inception(weights: Path | None) -> Extractor:
    """Return torch-fidelity's port of the Inception of the original FID (float32, 2048 features)."""
    path = _downloaded() if weights is None else weights
    digest = _verified_hash(path)
    name, notes = f"inception-v3-compat-{digest}", ()
    if digest != _PUBLISHED_HASH:
        notes = (f"the Inception weights {path.name} are not the published ones: compare with no published FID",)

    def load() -> Network:
        layers = ["2048", "logits_unbiased"]
        found = FeatureExtractorInceptionV3(name, layers, feature_extractor_weights_path=str(path))
        return lambda image: found.to(image.device)(image)

    return Extractor(name, INCEPTION_WIDTH, load, rgb=True, notes=notes)


def _downloaded() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), progress=False)
        except (urllib.error.URLError, OSError) as error:
            raise UserError(
                f"the Inception weights could not be downloaded ({error}): fetch {URL_INCEPTION_V3} elsewhere and "
                f"give its path (--inception-weights FILE), put it at {path}, or compare the features of a classifier "
                "trained on the data (--features classifier)"
            ) from error
    return path


def _verified_hash(path: Path) -> str:
    """Return the first eight digits of the file's SHA-256; refuse a file that holds anything but tensors.

    torch-fidelity unpickles the file without restrictions; this refuses one that could do harm there.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: the Inception weights are {URL_INCEPTION_V3}")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        if state["fc.weight"].shape[1] != INCEPTION_WIDTH:
            raise ValueError(state["fc.weight"].shape)
    except Exception as error:  # unpickling raises anything
        raise UserError(f"{path} does not hold torch-fidelity's Inception weights: get {URL_INCEPTION_V3}") from error
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
    """Return mean and spread over ``splits`` (Salimans et al. 2016)."""
    return isc_features_to_metric(generated.logits_NK, splits, True, seed)

"""FID, KID, Inception score, precision, recall and class balance of generated images, beside their noise floor.

N images · C channels · H height · W width
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from mar.core.errors import UserError, unknown
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.data.base import Data, Split, TensorSplit
from mar.metrics.images import ImageSet, check_images
from mar.metrics.result import NOT_SCORED, Balance, FidResult, ImageScores
from mar.metrics.statistics import Statistics

if TYPE_CHECKING:
    from mar.metrics.extractors import Extractor
    from mar.metrics.features import Features

LEAST_IMAGES = 8  # below, neither four neighbours nor two splits nor a covariance mean anything
KID_SUBSET_SIZE = 1000
INCEPTION_SCORE_SPLITS = 10


@dataclass(frozen=True)
class Images:
    """Images and who they are: ``identity`` names exactly these (their features are cached under it; "" never)."""

    name: str
    split: Split
    spec: DataSpec
    identity: str = ""


def images_of(data: Data, split: str) -> Images:
    """A split of a data set.

    Raises:
        UserError: no such split, or its examples are no images.
    """
    check_images(data.spec, f"data set {data.name!r}")
    if split not in ("train", "validation", "test"):
        raise unknown("split", split, ("train", "validation", "test"))
    return Images(split, data.split(split), data.spec, f"{data.name}-{data.fingerprint}-{split}")


def score_images(
    generated: torch.Tensor | Split,
    data: Data,
    cache_dir: Path,
    *,
    extractor: Literal["auto", "inception", "classifier"] | Extractor = "auto",
    weights: Path | None = None,
    labelled: Data | None = None,
    on: str = "test",
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> FidResult:
    """Score generated images against a split of real ones.

    Args:
        generated: (N, C, H, W) integer levels 0..levels-1, like the data's own examples.
        data: the real images; the noise floor takes as many of its training split as were generated
            (of its test split where ``on`` is "train").
        cache_dir: where the classifier and the real images' features are kept, named by fingerprint and weights.
        extractor: "auto" takes Inception for RGB images of at least 32 x 32 pixels, else a classifier of the data.
        weights: Inception's weights file; None: torch's own cache of downloads, filled if need be.
        labelled: images of the same shape to train the classifier on when ``data`` has no labels.
        on: the split to compare with.
        seed, device, batch_size: see ``Judge``.

    Raises:
        UserError: not images of 2 to 256 levels, too few of them, an extractor that cannot be had.
    """
    from mar.metrics.extractors import choose

    real = images_of(data, on)
    floor = images_of(data, "test" if on == "train" else "train")
    fake = TensorSplit(generated) if isinstance(generated, torch.Tensor) else generated
    check_enough(**{"generated": len(fake), f"in {on}": len(real.split), f"in {floor.name}": len(floor.split)})
    if isinstance(extractor, str):
        extractor = choose(extractor, data, cache_dir, weights, labelled)
    judge = Judge(real, extractor, cache_dir, floor, seed, device, batch_size)
    return judge.score(Images("generated", fake, data.spec))


def check_enough(**sizes: int) -> None:
    """Raise unless there are enough images everywhere."""
    if min(sizes.values()) < LEAST_IMAGES:
        said = ", ".join(f"{n} {where}" for where, n in sizes.items())
        raise UserError(f"FID needs at least {LEAST_IMAGES} images on every side, not {said}")


class Judge:
    """Scores any number of sets of images against one reference, looked at once.

    FID, precision and recall do not depend on the order of the images; KID and the Inception score draw subsets by
    ``seed``, so they move within their spread when the order changes.

    Args:
        reference: real images, or the statistics of their features: then KID, precision and recall are not defined.
        floor: where the images of the noise floor are drawn from; None: there is none.
        seed: of the subsets of KID, the splits of the Inception score and the images of the noise floor.
        device: where features are computed.
        batch_size: images at once on that device.

    Raises:
        UserError: the statistics are of another extractor.
    """

    def __init__(
        self,
        reference: Images | tuple[str, Statistics],
        extractor: Extractor,
        cache_dir: Path,
        floor: Images | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        self.extractor, self.cache_dir, self.floor = extractor, cache_dir, floor
        self.seed, self.device, self.batch_size = seed, device, batch_size
        self.real: Features | None = None
        if isinstance(reference, Images):
            self.name = reference.name
            self.real = self.look(reference)
            self.statistics = self.real.statistics
        else:
            self.name, self.statistics = reference
            _check_extractor(self.name, self.statistics, extractor)
        self.noise_floor = cache(self._noise_floor)  # of so many images

    def look(self, images: Images, index_N: torch.Tensor | None = None, drawn: str = "") -> Features:
        """Features of ``images``, or of those at ``index_N``, which ``drawn`` identifies."""
        from mar.metrics.features import extract

        shown = ImageSet(images.split, images.spec, rgb=self.extractor.rgb, index_N=index_N)
        identity = f"{images.identity}-{len(shown)}{drawn}" if images.identity else None
        name = None if identity is None else re.sub(r"[^\w.-]", "_", identity)
        return extract(shown, self.extractor, self.cache_dir, self.device, self.batch_size, name)

    def score(self, generated: Images) -> FidResult:
        """Raises UserError where there are too few images, or they are no images of the data."""
        from mar.metrics.features import KID_SUBSETS

        check_enough(generated=len(generated.split), real=self.statistics.n_images or LEAST_IMAGES)
        n_floor = min(len(generated.split), len(self.floor.split)) if self.floor else len(generated.split)
        found = self.look(generated)
        label_N = generated.split.batch(torch.arange(len(generated.split)))[1] if self.extractor.knows_labels else None
        scores, floor = self._scores(found, n_floor, label_N), self.noise_floor(n_floor)
        return FidResult(
            generated=scores,
            noise_floor=floor,
            noise_floor_split=self.floor.name if self.floor else "",
            n_real=self.statistics.n_images,
            split=self.name,
            extractor=self.extractor.name,
            feature_width=self.extractor.feature_width,
            kid_subset_size=self._kid_subset(n_floor),
            kid_subsets=KID_SUBSETS,
            inception_score_splits=_inception_splits(n_floor),
            notes=(
                *self.extractor.notes,
                *_warnings(scores, floor, self.statistics.n_images, self.extractor.feature_width),
            ),
        )

    def _noise_floor(self, n: int) -> ImageScores:
        if self.floor is None:
            return NOT_SCORED
        total = len(self.floor.split)
        pick_N = stream(self.seed, "evaluation/noise-floor", total).uniform(1)[:, 0].argsort(stable=True)[:n]
        return self._scores(self.look(self.floor, pick_N, f"-{self.seed}"), n, None)

    def _kid_subset(self, n: int) -> int:
        return min(KID_SUBSET_SIZE, min(n, self.statistics.n_images or n) // 2)

    def _scores(self, found: Features, n_floor: int, label_N: torch.Tensor | None) -> ImageScores:
        from mar.metrics import features

        kid = precision_recall = (math.nan, math.nan)
        if self.real is not None:
            kid = features.kid(found, self.real, self._kid_subset(n_floor), self.seed)
            precision_recall = features.precision_recall(found, self.real, self.device)
        score = features.inception_score(found, _inception_splits(n_floor), self.seed)
        fid, balance = features.fid(found.statistics, self.statistics), None
        if self.extractor.n_classes:
            balance = _balance(torch.from_numpy(features.classes_of(found, self.extractor)), self.extractor, label_N)
        return ImageScores(len(found), fid, *kid, *score, *precision_recall, balance)


def _inception_splits(n: int) -> int:
    return max(2, min(INCEPTION_SCORE_SPLITS, n // 100))


def _balance(class_N: torch.Tensor, extractor: Extractor, label_N: torch.Tensor | None) -> Balance:
    from scipy.stats import chisquare

    count_K = torch.bincount(class_N, minlength=extractor.n_classes)
    chi2, p_value = chisquare(count_K.numpy())
    known_N = None if label_N is None else label_N >= 0
    agreement = None
    if label_N is not None and known_N is not None and bool(known_N.any()):
        agreement = (class_N == label_N)[known_N].double().mean().item()
    return Balance(tuple(count_K.tolist()), float(chi2), float(p_value), agreement)


def _check_extractor(name: str, statistics: Statistics, extractor: Extractor) -> None:
    if statistics.extractor not in ("", extractor.name):
        raise UserError(
            f"the statistics {name} are of {statistics.extractor}, these images are seen by {extractor.name}: "
            "write statistics with the same features (mar fid-stats)"
        )
    if len(statistics.mu_D) != extractor.feature_width:
        raise UserError(
            f"the statistics {name} are of {len(statistics.mu_D)} features, {extractor.name} has "
            f"{extractor.feature_width}: choose the extractor that they were made with (--features)"
        )


def _warnings(scores: ImageScores, floor: ImageScores, n_real: int, width: int) -> tuple[str, ...]:
    notes = []
    least = min(scores.n_images, n_real or scores.n_images)
    if least <= width:
        notes.append(
            f"{least} images do not determine a covariance of {width} features: FID is biased far upwards, "
            "compare it only at equal numbers of images"
        )
    if 0 < floor.n_images < scores.n_images:
        notes.append(
            f"the noise floor has {floor.n_images} images, fewer than the {scores.n_images} generated: it is too high"
        )
    if scores.fid <= floor.fid:
        notes.append("FID is at or below that of real images: differences down here say nothing about quality")
    return tuple(notes)

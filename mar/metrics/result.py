"""What scoring a set of images gives."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Balance:
    """The classes that a classifier sees in a set of images.

    Attributes:
        counts: images of each class.
        chi2: Pearson's statistic against equal counts; the classifier's own errors are part of it, so read it beside
            that of real images.
        p_value: of it, by χ² with one degree of freedom less than there are classes.
        agreement: share of images whose class is the one asked for; None where none was, or it is numbered otherwise.
    """

    counts: tuple[int, ...]
    chi2: float
    p_value: float
    agreement: float | None = None


@dataclass(frozen=True)
class ImageScores:
    """One set of images against the real ones. Against statistics alone, what needs images is not a number.

    Attributes:
        n_images: how many were compared; FID depends on it.
        fid: squared Fréchet distance of Gaussians fitted to the features (Heusel et al. 2017, eq. 6); lower is better.
        kid_mean: unbiased squared MMD with the cubic kernel (Binkowski et al. 2018), mean over random subsets.
        kid_std: its spread over these subsets; not a standard error.
        inception_score_mean: exp of the mean KL(p(y|x) || p(y)) of the extractor's classes (Salimans et al. 2016).
        inception_score_std: its spread over the splits.
        precision: share of these images inside the 3-nearest-neighbour manifold of the real ones.
        recall: share of the real images inside the manifold of these (Kynkäänniemi et al. 2019).
        balance: of classes; None where the extractor knows none.
    """

    n_images: int
    fid: float
    kid_mean: float
    kid_std: float
    inception_score_mean: float
    inception_score_std: float
    precision: float
    recall: float
    balance: Balance | None = None


NOT_SCORED = ImageScores(0, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class FidResult:
    """Scores of generated images, beside those that real images of another split get: the noise floor.

    Attributes:
        generated: the generated images against the real ones.
        noise_floor: as many images of ``noise_floor_split`` against the same real ones, scored alike; without images
            to take, ``NOT_SCORED``.
        n_real: real images compared with; 0: statistics that do not say.
        split: the split that they come from, or the file or folder.
        extractor: the feature extractor with a hash of its weights; scores under two names cannot be compared.
        feature_width: dimensions of its features.
        kid_subset_size: images in each of ``kid_subsets`` subsets.
        inception_score_splits: parts that the images were cut into for the Inception score.
        notes: what to know before quoting the figures; empty when there is nothing.
    """

    generated: ImageScores
    noise_floor: ImageScores
    noise_floor_split: str
    n_real: int
    split: str
    extractor: str
    feature_width: int
    kid_subset_size: int
    kid_subsets: int
    inception_score_splits: int
    notes: tuple[str, ...] = ()

    @property
    def fid(self) -> float:
        return self.generated.fid

    @property
    def noise_floor_fid(self) -> float:
        return self.noise_floor.fid

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON; what is not a number is None."""
        return _without_nan(asdict(self))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value

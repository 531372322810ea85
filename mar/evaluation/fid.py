"""FID, KID, Inception score, precision and recall of generated images, by torch-fidelity, beside their noise floor.

N images · C channels · H height · W width
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from mar.data.base import Data, Split, TensorSplit
from mar.errors import UserError, unknown
from mar.evaluation.images import ImageSet, check_images
from mar.evaluation.result import FidResult, ImageScores
from mar.noise import stream

if TYPE_CHECKING:
    from mar.evaluation.extractors import Extractor

LEAST_IMAGES = 8  # below, neither four neighbours nor two splits nor a covariance mean anything
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
INCEPTION_SCORE_SPLITS = 10


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

    FID, precision and recall do not depend on the order of the images; KID and the Inception score draw subsets by
    ``seed``, so they move within their spread when the order changes.

    Args:
        generated: (N, C, H, W) integer levels 0..levels-1, like the data's own examples.
        data: the real images; the noise floor takes as many of its training split as were generated
            (of its test split where ``on`` is "train").
        cache_dir: where the classifier and the real images' features are kept, named by fingerprint and weights.
        extractor: "auto" takes Inception for RGB images of at least 32 x 32 pixels, else a classifier of the data.
        weights: Inception's weights file; None: torch's own cache of downloads, filled if need be.
        labelled: images of the same shape to train the classifier on when ``data`` has no labels.
        on: the split to compare with.
        seed: of the subsets of KID, the splits of the Inception score and the images of the noise floor.
        device: where features are computed.
        batch_size: images at once on that device.

    Raises:
        UserError: not images of 2 to 256 levels, too few of them, an extractor that cannot be had.
    """
    from mar.evaluation.extractors import choose

    check_images(data.spec, f"data set {data.name!r}")
    fake = TensorSplit(generated) if isinstance(generated, torch.Tensor) else generated
    if on not in ("train", "validation", "test"):
        raise unknown("split", on, ("train", "validation", "test"))
    real, floor_split = data.split(on), "test" if on == "train" else "train"
    floor = data.split(floor_split)
    if min(len(fake), len(real), len(floor)) < LEAST_IMAGES:
        sizes = f"{len(fake)} generated, {len(real)} in {on}, {len(floor)} in {floor_split}"
        raise UserError(f"FID needs at least {LEAST_IMAGES} images on every side, not {sizes}")
    if isinstance(extractor, str):
        extractor = choose(extractor, data, cache_dir, weights, labelled)

    n_floor = min(len(fake), len(floor))
    pick_N = stream(seed, "evaluation/noise-floor", len(floor)).uniform(1)[:, 0].argsort(stable=True)[:n_floor]
    least = min(n_floor, len(real))
    subset, splits = min(KID_SUBSET_SIZE, least // 2), max(2, min(INCEPTION_SCORE_SPLITS, n_floor // 100))
    common = _options(extractor, cache_dir, seed, device, batch_size, subset, splits)
    common |= {
        "input2": ImageSet(real, data.spec, rgb=extractor.rgb),
        "input2_cache_name": _cache_name(data, on, len(real)),
    }
    scores = _scores(ImageSet(fake, data.spec, rgb=extractor.rgb), None, common)
    floor_images = ImageSet(floor, data.spec, rgb=extractor.rgb, index_N=pick_N)
    floor_scores = _scores(floor_images, _cache_name(data, floor_split, n_floor, seed), common)
    return FidResult(
        generated=scores,
        noise_floor=floor_scores,
        noise_floor_split=floor_split,
        n_real=len(real),
        split=on,
        extractor=extractor.name,
        feature_width=extractor.feature_width,
        kid_subset_size=subset,
        kid_subsets=KID_SUBSETS,
        inception_score_splits=splits,
        notes=(*extractor.notes, *_warnings(scores, floor_scores, len(real), extractor.feature_width)),
    )


def _options(
    extractor: Extractor,
    cache_dir: Path,
    seed: int,
    device: torch.device | str,
    batch_size: int,
    kid_subset_size: int,
    splits: int,
) -> dict[str, Any]:
    """torch-fidelity's arguments that generated images and noise floor share."""
    return {
        "fid": True,
        "kid": True,
        "isc": True,
        "prc": True,
        "feature_extractor": extractor.name,
        "feature_extractor_weights_path": None if extractor.weights is None else str(extractor.weights),
        "kid_subsets": KID_SUBSETS,
        "kid_subset_size": kid_subset_size,
        "isc_splits": splits,
        "rng_seed": seed,
        "cache_root": str(cache_dir),
        "cuda": torch.device(device).type == "cuda",
        "batch_size": batch_size,
        "save_cpu_ram": True,  # no loader workers, and distances in parts of
        "prc_batch_size": 1000,  # images: 80 MB beside 10,000 others, where torch-fidelity's default takes gigabytes
        "verbose": False,
    }


def _scores(images: ImageSet, cache_name: str | None, common: dict[str, Any]) -> ImageScores:
    import torch_fidelity

    # precision and recall are not symmetric: the images are input 1, the real ones input 2
    metrics = torch_fidelity.calculate_metrics(input1=images, input1_cache_name=cache_name, **common)
    return ImageScores(
        n_images=len(images),
        fid=metrics[torch_fidelity.KEY_METRIC_FID],
        kid_mean=metrics[torch_fidelity.KEY_METRIC_KID_MEAN],
        kid_std=metrics[torch_fidelity.KEY_METRIC_KID_STD],
        inception_score_mean=metrics[torch_fidelity.KEY_METRIC_ISC_MEAN],
        inception_score_std=metrics[torch_fidelity.KEY_METRIC_ISC_STD],
        precision=metrics[torch_fidelity.KEY_METRIC_PRECISION],
        recall=metrics[torch_fidelity.KEY_METRIC_RECALL],
    )


def _cache_name(data: Data, *parts: object) -> str:
    """A file name that identifies exactly which images were shown; torch-fidelity appends the extractor's name."""
    return re.sub(r"[^\w.-]", "_", "-".join(map(str, (data.name, data.fingerprint, *parts))))


def _warnings(scores: ImageScores, floor: ImageScores, n_real: int, width: int) -> tuple[str, ...]:
    notes = []
    least = min(scores.n_images, n_real)
    if least <= width:
        notes.append(
            f"{least} images do not determine a covariance of {width} features: FID is biased far upwards, "
            "compare it only at equal numbers of images"
        )
    if floor.n_images < scores.n_images:
        notes.append(
            f"the noise floor has {floor.n_images} images, fewer than the {scores.n_images} generated: it is too high"
        )
    if scores.fid <= floor.fid:
        notes.append("FID is at or below that of real images: differences down here say nothing about quality")
    return tuple(notes)

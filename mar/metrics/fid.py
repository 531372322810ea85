"""FID, KID, Inception score, precision, recall and class balance of generated images, beside their noise floor.

N images · C channels · H height · W width
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field

from mar.config import Section
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.progress import Progress
from mar.core.spec import DataSpec
from mar.core.table import Column, field, fields
from mar.data import DATA
from mar.data.base import Data, Split, TensorSplit
from mar.metrics.base import Metric, Question, SplitName, Subject, Variant, Workspace
from mar.metrics.images import FeatureSettings, Images, ImageSet, Source, Statistics, cache_folder, images_of, load_data
from mar.metrics.samples import ANIMATION, SAMPLES, GenerationRecorder
from mar.run import Run
from mar.sampling.output import image_grid, save_animation

if TYPE_CHECKING:
    from mar.metrics.features import Extractor, Features

LEAST_IMAGES = 8  # fewer give no meaningful precision/recall (k=4), KID splits or covariance
KID_SUBSET_SIZE = 1000
INCEPTION_SCORE_SPLITS = 10


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
    """Scores of one set of images against the real ones; against statistics alone, scores that need images are NaN.

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
        notes: printed below the figures.
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

    @cached_property
    def fid(self) -> float:
        return self.generated.fid

    @cached_property
    def noise_floor_fid(self) -> float:
        return self.noise_floor.fid

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON; NaN becomes None."""
        return _without_nan(asdict(self))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


@dataclass(frozen=True)
class GeneratedImages:
    """Images generated along a plan, and their scores.

    Attributes:
        sampling_seconds, sampling_cpu_seconds: time of generating ``scores.generated``.
        clock: the one that a table shows.
        samples, animation: pictures, relative to the grid's folder.
    """

    scores: FidResult
    sampling_seconds: float | None = None
    sampling_cpu_seconds: float | None = None
    clock: Literal["wall", "cpu"] = "wall"
    samples: str | None = None
    animation: str | None = None

    @cached_property
    def seconds(self) -> float | None:
        """Time of generating, by ``clock``."""
        return self.sampling_seconds if self.clock == "wall" else self.sampling_cpu_seconds

    @cached_property
    def images_per_second(self) -> float | None:
        return self.scores.generated.n_images / self.seconds if self.seconds else None


class FID(Metric):
    """Images generated along each plan, from the same noise and classes, against a split of real ones."""

    class Options(Section):
        images: int = Field(default=1000, ge=8)
        split: SplitName = "test"
        guidance: float = Field(default=1.0, ge=0)
        temperature: float = Field(default=1.0, ge=0)
        seed: int = Field(default=0, ge=0)
        shown: int = Field(default=40, ge=1, description="images in the picture of samples")
        animated: int = Field(default=12, ge=1, description="images in the animation")

    name, title, Answer = "fid", "images", GeneratedImages
    default = Options()
    options: Options
    _scorer: tuple[Any, FidScorer] | None = None  # of the data scored last

    def question(self, subject: Subject) -> Question:
        return self.along_plan(subject, subject.variant)

    def compute(self, question: Question, at: Workspace) -> GeneratedImages:
        assert question.plan is not None
        run, started = at.load(), (time.monotonic(), time.process_time())
        images = sample_images(run, question.plan, self.options, at.variant, at.folder, at.progress)
        wall, cpu = time.monotonic() - started[0], time.process_time() - started[1]
        data, key = run.images, (run.images.fingerprint, run.device)
        if self._scorer is None or self._scorer[0] != key:  # its features of real images serve every plan
            split, seed = self.options.split, self.options.seed
            self._scorer = key, scorer_of(data, at.cache, len(images), on=split, seed=seed, device=run.device)
        scores = self._scorer[1].score(Images("generated", TensorSplit(images), data.spec))
        return GeneratedImages(scores, wall, cpu)

    def read(self, answer: Any, folder: str) -> GeneratedImages:
        found: GeneratedImages = super().read(answer, folder)
        clock = getattr(self.asked.get("speed"), "clock", "wall")
        return replace(found, clock=clock, samples=f"{folder}/{SAMPLES}", animation=f"{folder}/{ANIMATION}")

    @classmethod
    def columns(cls, answers: Sequence[GeneratedImages]) -> Sequence[Column[GeneratedImages]]:
        scores = "scores.generated"
        return [
            Column("FID", field(f"{scores}.fid"), "lower", 2),
            Column("KID", field(f"{scores}.kid_mean"), "lower", 4, drop=2),
            Column("IS", field(f"{scores}.inception_score_mean"), "higher", 2, drop=2),
            Column("precision", field(f"{scores}.precision"), "higher", 3, drop=2),
            Column("recall", field(f"{scores}.recall"), "higher", 3, drop=2),
            Column("images/s", field("images_per_second"), "higher", 1, drop=2),
        ]

    @classmethod
    def data_columns(cls) -> Sequence[Column[GeneratedImages]]:
        names = ("fid", "kid_mean", "kid_std", "inception_score_mean", "inception_score_std", "precision", "recall")
        paths = {"images": "scores.generated.n_images", **{name: f"scores.generated.{name}" for name in names}}
        paths |= {"fid_noise_floor": "scores.noise_floor.fid", "sampling_seconds": "seconds"}
        return fields(**paths, images_per_second="images_per_second")

    @classmethod
    def alike(cls, answer: GeneratedImages, recipe: Mapping[str, Any]) -> Hashable:
        """Images, extractor, and the noise floor, which tells the real images."""
        found = answer.scores
        floor = f"{found.noise_floor.fid:.2f} of {found.noise_floor.n_images}"
        return found.generated.n_images, found.n_real, found.split, found.extractor, floor

    @classmethod
    def notes(cls, answers: Sequence[GeneratedImages], grid: Mapping[str, Any]) -> list[str]:
        first, fid = answers[0].scores, grid["fid"]
        variants, floor = grid.get("variants", ()), first.noise_floor
        changed = any(variant.get(of) is not None for variant in variants for of in ("guidance", "temperature"))
        own = ", where the variant says nothing else" if changed else ""
        said = (
            f"FID and the rest: {first.generated.n_images} generated images (guidance {fid['guidance']:g}, temperature "
            f"{fid['temperature']:g}{own}) against {first.n_real} {first.split} images, features {first.extractor} of "
            f"width {first.feature_width}, KID subsets of {first.kid_subset_size}. Noise floor ({floor.n_images} real "
            f"{first.noise_floor_split} images, scored alike): FID {floor.fid:.2f}, KID "
            f"{floor.kid_mean:.4f}, IS {floor.inception_score_mean:.2f}, precision {floor.precision:.3f}, recall "
            f"{floor.recall:.3f}."
        )
        shared = sorted(set.intersection(*(set(answer.scores.notes) for answer in answers)))
        return [said, *(f"{note[0].upper()}{note[1:]}." for note in shared)]


def sample_images(
    run: Run, plan: str, options: FID.Options, variant: Variant | None, folder: Path, progress: Progress | None = None
) -> torch.Tensor:
    """Return images (N, C, H, W) along ``plan``; the first ones become a picture and an animation in ``folder``."""
    recorder = GenerationRecorder(run, min(options.animated, options.images))
    chosen: dict[str, Any] = dict(variant.options) if variant is not None else {}
    for key in ("guidance", "temperature"):
        own = None if variant is None else getattr(variant, key)
        chosen[key] = getattr(options, key) if own is None else own
    images = run.sample(
        options.images, plan, seed=options.seed, on_step=recorder.record, progress=progress,
        adaptive=(variant.adaptive or None) if variant is not None else None, **chosen,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    shown = images[: options.shown]
    image_grid(shown, run.data.spec.levels, columns=min(10, len(shown))).save(folder / SAMPLES)
    save_animation(recorder.frames, 256, folder / ANIMATION)
    return images


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
        seed, device, batch_size: see ``FidScorer``.

    Raises:
        UserError: not images of 2 to 256 levels, too few of them, an extractor that cannot be had.
    """
    fake = TensorSplit(generated) if isinstance(generated, torch.Tensor) else generated
    scorer = scorer_of(
        data, cache_dir, len(fake), extractor=extractor, weights=weights, labelled=labelled, on=on, seed=seed,
        device=device, batch_size=batch_size,
    )  # fmt: skip
    return scorer.score(Images("generated", fake, data.spec))


def scorer_of(
    data: Data,
    cache_dir: Path,
    n: int,
    *,
    extractor: Literal["auto", "inception", "classifier"] | Extractor = "auto",
    weights: Path | None = None,
    labelled: Data | None = None,
    on: str = "test",
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> FidScorer:
    """Return the scorer of ``score_images`` for ``n`` generated images. Arguments and errors: as there."""
    from mar.metrics.features import choose

    real = images_of(data, on)
    floor = images_of(data, "test" if on == "train" else "train")
    check_enough(**{"generated": n, f"in {on}": len(real.split), f"in {floor.name}": len(floor.split)})
    if isinstance(extractor, str):
        extractor = choose(extractor, data, cache_dir, weights, labelled)
    return FidScorer(real, extractor, cache_dir, floor, seed, device, batch_size)


def check_enough(**sizes: int) -> None:
    """Raise UserError if any set has too few images."""
    if min(sizes.values()) < LEAST_IMAGES:
        said = ", ".join(f"{n} {where}" for where, n in sizes.items())
        raise UserError(f"FID needs at least {LEAST_IMAGES} images on every side, not {said}")


class FidScorer:
    """Scores any number of sets of images against one reference, whose features are extracted once.

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
            self.real = self.features(reference)
            self.statistics = self.real.statistics
        else:
            self.name, self.statistics = reference
            _check_extractor(self.name, self.statistics, extractor)
        self.noise_floor = cache(self._noise_floor)  # of so many images

    @classmethod
    def of_source(
        cls, reference: Source, own: Data | None, spec: DataSpec, settings: FeatureSettings, cache_dir: Path
    ) -> FidScorer:
        """Return the scorer of images like ``spec`` against ``reference``. The noise floor is another split of ``own``,
        or of the reference's data set.

        Raises:
            UserError: the features cannot be had, or are not those of the statistics; images of another shape.
        """
        data = own or reference.data
        if reference.images is not None and reference.images.spec.shape != spec.shape:
            shape = reference.images.spec.shape
            raise UserError(f"the images of {reference.name} have shape {shape}, those to score {spec.shape}")
        extractor, floor = _extractor(data, spec, settings, cache_dir), None
        if data is not None:  # never the reference's split: ``data`` may be the same data set, loaded again
            floor = images_of(data, "train" if reference.data is not None and reference.name != "train" else "test")
        what = reference.images
        if what is None:
            assert reference.statistics is not None
            what = (reference.name, reference.statistics)
        return cls(what, extractor, cache_dir, floor, settings.seed, settings.device)

    def features(self, images: Images, index_N: torch.Tensor | None = None, drawn: str = "") -> Features:
        """Return features of ``images``, or of those at ``index_N``, which ``drawn`` identifies."""
        from mar.metrics.features import extract

        shown = ImageSet(images.split, images.spec, rgb=self.extractor.rgb, index_N=index_N)
        identity = f"{images.identity}-{len(shown)}{drawn}" if images.identity else None
        name = None if identity is None else re.sub(r"[^\w.-]", "_", identity)
        return extract(shown, self.extractor, self.cache_dir, self.device, self.batch_size, name)

    def score(self, generated: Images) -> FidResult:
        """Raises UserError where there are too few images, or they are no images of the data."""
        from mar.metrics.features import KID_SUBSETS

        n = len(generated.split)
        check_enough(generated=n, real=self.statistics.n_images or LEAST_IMAGES)
        n_floor = min(n, len(self.floor.split)) if self.floor else n
        found = self.features(generated)
        label_N = generated.split.batch(torch.arange(n))[1] if self.extractor.knows_labels else None
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
        return self._scores(self.features(self.floor, pick_N, f"-{self.seed}"), n, None)

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


def statistics_of(source: Images, data: Data | None, settings: FeatureSettings) -> Statistics:
    """Return the statistics of the features of all images of a source."""
    extractor = _extractor(data, source.spec, settings, cache_folder())
    return FidScorer(source, extractor, cache_folder(), None, settings.seed, settings.device).statistics


def _extractor(data: Data | None, spec: DataSpec, settings: FeatureSettings, cache_dir: Path) -> Extractor:
    from mar.metrics.features import choose

    labelled = load_data(*DATA.split(settings.labelled)) if settings.labelled else None
    if data is None:  # unlabelled images of unknown origin
        nothing = Split()
        data = Data("these images", spec, nothing, nothing, nothing, "")
    return choose(settings.kind, data, cache_dir, settings.inception_weights, labelled)


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

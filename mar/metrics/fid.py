"""FID, KID, Inception score, precision, recall and class balance of generated images, beside their noise floor.

N images · C channels · H height · W width
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import field as dataclass_field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, model_serializer

from mar import build
from mar.config import Section
from mar.core.errors import UserError
from mar.core.files import cache_folder
from mar.core.noise import stream
from mar.core.progress import Progress
from mar.core.spec import DataSpec
from mar.core.table import Better, Column, field, fields, of_rows, plus_minus
from mar.data.base import Data, Split, TensorSplit
from mar.metrics.base import Metric, Question, SplitName, Subject, Variant, Workspace
from mar.metrics.images import BEFORE_TEST, RESIZING, FeatureSettings, Images, Reference, images_of
from mar.metrics.samples import ANIMATION, SAMPLES, GenerationRecorder
from mar.metrics.statistics import Spread, spread
from mar.run import Run
from mar.sampling.guidance import Guidance, Temperature
from mar.sampling.output import image_grid, save_animation
from orderings.user import is_file_target

if TYPE_CHECKING:
    from mar.metrics.extractors import Extractor
    from mar.metrics.features import Features

LEAST_IMAGES = 8  # fewer give no meaningful precision/recall (k=4), KID splits or covariance
KID_SUBSET_SIZE = 1000
INCEPTION_SCORE_SPLITS = 10
FLOOR_DRAWS = 20  # of real images, for the spread of the noise floor's FID
_WIDE = 512  # features; a covariance of more (Inception's 2,048) takes seconds a draw


@dataclass(frozen=True)
class Balance:
    """The classes that a classifier sees in a set of images."""

    counts: tuple[int, ...]  # images of each class
    chi2: float  # Pearson's, against equal counts; includes the classifier's errors: read it beside that of real images
    p_value: float  # of it, by χ² with one degree of freedom less than there are classes
    agreement: float | None = None  # share of images of the requested class; None: none was requested or known


@dataclass(frozen=True)
class ImageScores:
    """Scores of one set of images against the real ones; against statistics alone, scores that need images are NaN."""

    n_images: int  # how many were compared; FID depends on it
    fid: float  # squared Fréchet distance of Gaussians fitted to the features (Heusel et al. 2017, eq. 6)
    kid_mean: float  # unbiased squared MMD, cubic kernel (Binkowski et al. 2018), mean over random subsets
    kid_std: float  # its spread over these subsets; not a standard error
    inception_score_mean: float  # exp of the mean KL(p(y|x) || p(y)) of the classes (Salimans et al. 2016)
    inception_score_std: float  # its spread over the splits
    precision: float  # share of these images inside the 3-nearest-neighbour manifold of the real ones
    recall: float  # share of the real images inside the manifold of these (Kynkäänniemi et al. 2019)
    balance: Balance | None = None  # None where the extractor knows no classes
    density: float | None = None  # balls of 5 nearest real images around an image, over 5 (Naeem et al. 2020)
    coverage: float | None = None  # share of real images whose ball holds an image
    sfid: float | None = None  # FID of Inception's spatial features (Nash et al. 2021); None: not asked
    fid_infinity: float | None = None  # extrapolated to infinitely many images (Chong & Forsyth 2020); None: not asked
    cmmd: float | None = None  # of CLIP's features (Jayasumana et al. 2024)


NOT_SCORED = ImageScores(0, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class FidResult:
    """Scores of generated images, beside those that real images of another split get: the noise floor."""

    generated: ImageScores
    noise_floor: ImageScores  # as many real images against the same reference; without any to take, ``NOT_SCORED``
    noise_floor_split: str
    n_real: int  # real images compared with; 0: statistics that do not say
    split: str  # where they come from: a split, file or folder
    extractor: str  # with a hash of its weights; scores under two names cannot be compared
    feature_width: int
    kid_subset_size: int
    kid_subsets: int
    inception_score_splits: int
    notes: tuple[str, ...] = ()  # printed below the figures
    resizing: str = ""  # of files to images, and of images to what the extractor takes; "": a record that does not say
    n_compared: int | None = None  # real images that KID, precision, … compare with, fewer than behind ADM's mu
    by_class: dict[str, float | None] = dataclass_field(default_factory=dict)  # FID; None: too few images
    noise_floor_fid: tuple[float, ...] = ()  # FID of several draws of real images; empty: ``noise_floor`` alone

    @property
    def fid(self) -> float:
        return self.generated.fid

    @cached_property
    def floor(self) -> Spread:
        """The FID of as many real images, over draws; NaN without real images."""
        return spread(self.noise_floor_fid or (self.noise_floor.fid,))

    @property
    def floor_text(self) -> str:
        """The floor for print, "1.13 ± 0.12 over 20 draws"."""
        over = self.floor
        draws = f" over {len(over.values)} draws"
        return f"{over.mean:.2f}" if over.sd is None else plus_minus(over.mean, over.sd, 2) + draws

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values for JSON; NaN becomes None."""
        return _without_nan(asdict(self))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


@dataclass(frozen=True)
class Memory:
    """How far images lie from their nearest training image: root mean square over pixels, as a share of the range.

    Copies of training images lie nearer than unseen images of the same distribution do.
    """

    generated: float  # mean over the generated images
    unseen: float  # mean over the images of the split that FID compares with

    @property
    def ratio(self) -> float:
        """1: generated images lie as far from the training images as unseen ones; 0: they are copies."""
        return self.generated / self.unseen


@dataclass(frozen=True)
class GeneratedImages:
    """Images generated along a plan, and their scores."""

    scores: FidResult
    sampling_seconds: float | None = None
    sampling_cpu_seconds: float | None = None
    clock: Literal["wall", "cpu"] = "wall"  # the one that a table shows
    samples: str | None = None  # a picture and an animation, relative to the grid's folder
    animation: str | None = None
    memory: Memory | None = None  # None: not asked

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
        nearest: bool = Field(default=False, description="compare each image with its nearest training image")
        features: str = Field(default="auto", description="inception, classifier, clip-…, dinov2-…, or FILE.py:Class")

        sfid: bool = Field(default=False, description="also compare Inception's spatial features")
        infinity: bool = Field(default=False, description="extrapolate FID to infinitely many images")

        @model_serializer(mode="wrap")
        def _omit_default(self, dump: Any) -> dict[str, Any]:
            """Omit later options unless they are asked, so that answers to existing questions stay answers."""
            later = {"nearest": False, "features": "auto", "sfid": False, "infinity": False}
            return {key: value for key, value in dump(self).items() if later.get(key, ...) != value}

    name, title, Answer = "fid", "images", GeneratedImages
    default = Options()
    options: Options
    _scorer: tuple[Any, FidScorer] | None = None  # of the data scored last

    def question(self, subject: Subject) -> Question:
        found = self.along_plan(subject, subject.variant)
        if is_file_target(self.options.features):
            found.content["features"] = FeatureSettings(self.options.features).identity
        return found

    def compute(self, question: Question, at: Workspace) -> GeneratedImages:
        assert question.plan is not None
        run = at.load()
        data, key = run.images, (run.images.fingerprint, run.device)
        if self._scorer is None or self._scorer[0] != key:  # its features of real images serve every plan
            settings = FeatureSettings(
                self.options.features, seed=self.options.seed, device=run.device, spatial=self.options.sfid,
                infinity=self.options.infinity,
            )  # fmt: skip
            real = images_of(data, self.options.split)
            self._scorer = key, scorer_of(real, data.spec, settings, at.cache, data)
        started = time.monotonic(), time.process_time()
        images = sample_images(run, question.plan, self.options, at.variant, at.folder, at.progress)
        wall, cpu = time.monotonic() - started[0], time.process_time() - started[1]
        scores = self._scorer[1].score(Images("generated", TensorSplit(images), data.spec))
        memory = memory_of(images, data, self.options.split) if self.options.nearest else None
        return GeneratedImages(scores, wall, cpu, memory=memory)

    def read(self, answer: Any, folder: str) -> GeneratedImages:
        found: GeneratedImages = super().read(answer, folder)
        clock = getattr(self.asked.get("speed"), "clock", "wall")
        return replace(found, clock=clock, samples=f"{folder}/{SAMPLES}", animation=f"{folder}/{ANIMATION}")

    @classmethod
    def columns(cls, answers: Sequence[GeneratedImages]) -> Sequence[Column[GeneratedImages]]:
        scores = [
            Column[ImageScores]("KID", lambda found: found.kid_mean, "lower", 4, drop=2),
            Column[ImageScores]("IS", lambda found: _known(found.inception_score_mean), "higher", 2, drop=2),
            Column[ImageScores]("precision", lambda found: found.precision, "higher", 3, drop=2),
            Column[ImageScores]("recall", lambda found: found.recall, "higher", 3, drop=2),
        ]
        later: dict[str, Better] = {
            "density": "higher",
            "coverage": "higher",
            "sfid": "lower",
            "fid_infinity": "lower",
            "cmmd": "lower",
        }
        given = {name for name in later if any(getattr(one.scores.generated, name) is not None for one in answers)}
        titles = {"sfid": "sFID", "fid_infinity": "FID∞", "cmmd": "CMMD"}
        scores += [
            Column(titles.get(name, name), field(name), better, 3, drop=2) for name, better in later.items()
            if name in given
        ]  # fmt: skip
        floor = field("scores.floor.mean")
        return [
            Column("FID", field("scores.fid"), "lower", 2, floor=floor),
            *of_rows(scores, lambda answer: answer.scores.generated),
            Column("distance to training images", field("memory.ratio"), digits=2, drop=2),
            Column("images/s", field("images_per_second"), "higher", 1, drop=2),
        ]

    @classmethod
    def data_columns(cls) -> Sequence[Column[GeneratedImages]]:
        names = ("fid", "kid_mean", "kid_std", "inception_score_mean", "inception_score_std", "precision", "recall")
        paths = {"images": "scores.generated.n_images", **{name: f"scores.generated.{name}" for name in names}}
        paths |= {"fid_noise_floor": "scores.noise_floor.fid", "sampling_seconds": "seconds"}
        paths |= {"distance_to_training": "memory.generated", "distance_of_unseen": "memory.unseen"}
        return fields(**paths, images_per_second="images_per_second")

    @classmethod
    def alike(cls, answer: GeneratedImages, recipe: Mapping[str, Any]) -> Hashable:
        """Images, extractor, and the noise floor, which tells the real images."""
        found = answer.scores
        floor = f"{found.noise_floor.fid:.2f} of {found.noise_floor.n_images}"  # of one draw, so that old records fit
        return found.generated.n_images, found.n_real, found.split, found.extractor, floor

    @classmethod
    def notes(cls, answers: Sequence[GeneratedImages], grid: Mapping[str, Any]) -> list[str]:
        first, fid = answers[0].scores, grid["fid"]
        variants, floor = grid.get("variants", ()), first.noise_floor
        own = ("guidance", "temperature", "guidance_schedule", "temperature_schedule")
        changed = any(variant.get(of) is not None for variant in variants for of in own)
        score = "" if math.isnan(floor.inception_score_mean) else f"IS {floor.inception_score_mean:.2f}, "
        own = ", where the variant says nothing else" if changed else ""
        said = (
            f"FID and the rest: {first.generated.n_images} generated images (guidance {fid['guidance']:g}, temperature "
            f"{fid['temperature']:g}{own}) against {first.n_real} {first.split} images, features {first.extractor} of "
            f"width {first.feature_width}, KID subsets of {first.kid_subset_size}. Noise floor ({floor.n_images} real "
            f"{first.noise_floor_split} images, scored alike): FID {first.floor_text}, KID "
            f"{floor.kid_mean:.4f}, {score}precision {floor.precision:.3f}, recall "
            f"{floor.recall:.3f}."
        )
        shared = sorted(set.intersection(*(set(answer.scores.notes) for answer in answers)))
        if (memory := answers[0].memory) is not None:
            shared.append(
                "distance to training images: mean distance of a generated image to its nearest training image, over "
                f"that of the {first.split} images ({memory.unseen:.4f}); below 1: nearer than unseen ones, 0: copies. "
                "In the pictures of samples every second row shows these training images"
            )
        return [said, *(f"{note[0].upper()}{note[1:]}." for note in shared)]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def sample_images(
    run: Run, plan: str, options: FID.Options, variant: Variant | None, folder: Path, progress: Progress | None = None
) -> torch.Tensor:
    """Return images (N, C, H, W) along ``plan``; the first ones become a picture and an animation in ``folder``."""
    recorder = GenerationRecorder(run, min(options.animated, options.images))
    chosen: dict[str, Any] = {"guidance": options.guidance, "temperature": options.temperature}
    if variant is not None:
        chosen |= {key: own for key in chosen if (own := getattr(variant, key)) is not None}
        chosen["guidance"] = Guidance(chosen["guidance"], variant.guidance_schedule)
        chosen["temperature"] = Temperature(chosen["temperature"], variant.temperature_schedule)
        chosen |= {**variant.options, "adaptive": variant.adaptive or None}
    images = run.sample(
        options.images, plan, seed=options.seed, on_step=recorder.record, progress=progress, **chosen
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    shown = images[: options.shown]
    columns = min(10, len(shown))
    if options.nearest:
        near = _images(run.images.train)[_nearest(shown, run.images.train, run.images.spec.levels)[1]]
        rows = zip(shown.split(columns), near.split(columns), strict=True)
        shown = torch.cat([row for pair in rows if len(pair[0]) == columns for row in pair])
    image_grid(shown, run.spec.levels, columns=columns).save(folder / SAMPLES)
    save_animation(recorder.frames, folder / ANIMATION)
    return images


def memory_of(images: torch.Tensor, data: Data, unseen: str) -> Memory:
    """Return how far ``images`` (N, C, H, W), levels, and the split ``unseen`` lie from the training images."""
    of_split = _images(images_of(data, unseen).split)
    distances = [_nearest(x, data.train, data.spec.levels)[0].mean().item() for x in (images, of_split)]
    return Memory(*distances)


def _images(split: Split) -> torch.Tensor:
    return split.batch(torch.arange(len(split)))[0]


def _nearest(images: torch.Tensor, split: Split, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distance_N of each image (N, C, H, W) to the nearest one of ``split``, and the index_N of that one."""
    best_N, at_N = torch.full((len(images),), math.inf), torch.zeros(len(images), dtype=torch.int64)
    x_ND = images.flatten(1).float()
    for index_M in torch.arange(len(split)).split(1024):
        distance_NM = torch.cdist(x_ND, split.batch(index_M)[0].flatten(1).float())
        least_N, place_N = distance_NM.min(1)
        nearer_N = least_N < best_N
        best_N, at_N = torch.where(nearer_N, least_N, best_N), torch.where(nearer_N, index_M[place_N], at_N)
    return best_N / (math.sqrt(x_ND.shape[1]) * (levels - 1)), at_N


def score_images(
    generated: torch.Tensor | Split, data: Data, cache_dir: Path, on: str = "test", **settings: Any
) -> FidResult:
    """Score generated images, (N, C, H, W) integer levels like the data's own examples, against the split ``on``.

    Args:
        cache_dir: where the classifier and the real images' features are kept, named by fingerprint and weights.
        settings: fields of ``FeatureSettings``.

    Raises UserError: not images of 2 to 256 levels, too few of them, an extractor that cannot be had.
    """
    fake = TensorSplit(generated) if isinstance(generated, torch.Tensor) else generated
    scorer = scorer_of(images_of(data, on), data.spec, FeatureSettings(**settings), cache_dir, data)
    return scorer.score(Images("generated", fake, data.spec))


def while_training(data: Data, device: torch.device) -> Callable[[torch.Tensor], float]:
    """Return what computes ``train.fid_every``: the FID of images against the validation split, features by default.

    Raises UserError: as ``score_images``, before the training.
    """
    real = build.images(data)
    scorer = scorer_of(images_of(real, "validation"), real.spec, FeatureSettings(device=device), cache_folder(), real)
    return lambda images: scorer.score(Images("generated", TensorSplit(images), real.spec)).fid


def scorer_of(
    reference: Reference, spec: DataSpec, settings: FeatureSettings, cache_dir: Path, own: Data | None = None
) -> FidScorer:
    """Return the scorer of images like ``spec`` against ``reference``.

    Args:
        own: the data set that the images imitate: its labels train the classifier, and a split of it is the noise
            floor; None: the data set of the reference, if any.

    Raises UserError: the features cannot be had, or are not those of the statistics; images of another shape.
    """
    from mar.metrics.extractors import choose

    found = reference.data if isinstance(reference, Images) else None
    if reference.spec is not None and reference.spec.shape != spec.shape:
        raise UserError(
            f"the images of {reference.name} have shape {reference.spec.shape}, those to score {spec.shape}"
        )
    data = own or found
    floor = None  # never the reference's split: ``data`` may be the same data set, loaded again
    if data is not None:
        floor = images_of(
            data, "train" if found is not None and reference.name not in ("train", BEFORE_TEST) else "test"
        )
    unlabelled = Data("these images", spec, Split(), Split(), Split(), "")
    return FidScorer(reference, choose(settings, data or unlabelled, cache_dir), cache_dir, floor, settings)


class FidScorer:
    """Scores any number of sets of images against one reference, whose features are extracted once.

    FID, precision and recall do not depend on the order of the images; KID and the Inception score draw subsets by
    ``settings.seed``, so they move within their spread when the order changes.

    Args:
        reference: real images, or the statistics of their features: then KID, precision and recall are those against
            the images beside them, or not defined.
        floor: where the images of the noise floor are drawn from; None: there is none.

    Raises UserError: the statistics are of another extractor.
    """

    def __init__(
        self, reference: Reference, extractor: Extractor, cache_dir: Path, floor: Images | None = None,
        settings: FeatureSettings | None = None,
    ) -> None:  # fmt: skip
        self.name, self.extractor, self.cache_dir, self.floor = reference.name, extractor, cache_dir, floor
        self.settings = settings or FeatureSettings()
        self.real: Features | None = None
        if isinstance(reference, Images):
            self.real = self.features(reference)
            about = {"name": reference.name, "shape": reference.spec.shape, "resizing": reference.resizing}
            self.statistics = replace(self.real.statistics, **about)
        else:
            self.statistics = reference
            self._check_statistics()
            if reference.images is not None:
                self.real = self.features(reference.images)
        self._labelled = reference if isinstance(reference, Images) else reference.images
        self.noise_floor, self.floor_draws = cache(self._noise_floor), cache(self._floor_draws)  # by number of images

    def _check_statistics(self) -> None:
        made_by, width = self.statistics.extractor, len(self.statistics.mu_D)
        if made_by not in ("", self.extractor.name):
            raise UserError(
                f"the statistics {self.name} are of {made_by}, these images are seen by {self.extractor.name}: "
                "write statistics with the same features (mar fid-stats)"
            )
        if width != self.extractor.feature_width:
            raise UserError(
                f"the statistics {self.name} are of {width} features, {self.extractor.name} has "
                f"{self.extractor.feature_width}: choose the extractor that they were made with (--features)"
            )
        spatial = 0 if self.statistics.spatial is None else len(self.statistics.spatial.mu_D)
        if self.extractor.spatial_width not in (0, spatial):
            raise UserError(
                f"the statistics {self.name} have {spatial} spatial features (mu_s), sFID takes "
                f"{self.extractor.spatial_width}: leave out --sfid, or write statistics with it (mar fid-stats --sfid)"
            )
        if self.statistics.resizing not in ("", "none", RESIZING):
            raise UserError(
                f"the images of the statistics {self.name} were {self.statistics.resizing}, ours are {RESIZING}: write "
                "statistics of the same images (mar fid-stats)"
            )

    def features(self, images: Images, index_N: torch.Tensor | None = None, drawn: str = "") -> Features:
        """Return features of ``images``, or of those at ``index_N``, which ``drawn`` identifies."""
        from mar.metrics.features import extract

        device, batch_size = self.settings.device, self.settings.batch_size
        return extract(images, self.extractor, self.cache_dir, device, batch_size, index_N, drawn)

    def score(self, generated: Images) -> FidResult:
        """Raises UserError where there are too few images, or they are no images of the data."""
        from mar.metrics.features import KID_SUBSETS

        n, n_real = len(generated.split), self.statistics.n_images
        sizes = {"generated": n, "real": n_real or n, "for the noise floor": len(self.floor.split) if self.floor else n}
        if min(sizes.values()) < LEAST_IMAGES:
            said = ", ".join(f"{count} {where}" for where, count in sizes.items())
            raise UserError(f"FID needs at least {LEAST_IMAGES} images on every side, not {said}")
        n_floor = min(n, sizes["for the noise floor"])
        found = self.features(generated)
        label_N = generated.split.batch(torch.arange(n))[1] if self.extractor.knows_labels else None
        scores, floor = self._scores(found, n_floor, label_N), self.noise_floor(n_floor)
        return FidResult(
            generated=scores,
            noise_floor=floor,
            noise_floor_split=self.floor.name if self.floor else "",
            n_real=n_real,
            split=self.name,
            extractor=self.extractor.name,
            feature_width=self.extractor.feature_width,
            kid_subset_size=self._kid_subset(n_floor),
            kid_subsets=KID_SUBSETS,
            inception_score_splits=_inception_splits(n_floor),
            notes=(*self.extractor.notes, *_warnings(scores, floor, n_real, self.extractor.feature_width)),
            resizing=f"of files: {generated.resizing}; for the features: {self.extractor.resizing}",
            by_class=self._by_class(generated, found) if self.settings.by_class else {},
            n_compared=None if self.real is None else len(self.real),
            noise_floor_fid=self.floor_draws(n_floor),
        )

    def _by_class(self, generated: Images, found: Features) -> dict[str, float | None]:
        """Return FID of the images of each class, by its name or number."""
        from mar.metrics import features

        label_N, label_M = (_labels(images) for images in (generated, self._labelled))
        if label_N is None or label_M is None or self.real is None:
            raise UserError("FID by class needs the classes of the generated and of the real images: leave it out")
        names, scores = generated.spec.class_names or (self._labelled or generated).spec.class_names, {}
        for k in label_M[label_M >= 0].unique().tolist():
            sides = [replace(all_, feature_ND=all_.feature_ND[label == k], spatial_NS=None)
                     for all_, label in ((found, label_N), (self.real, label_M))]  # fmt: skip
            enough = min(map(len, sides)) >= LEAST_IMAGES
            fid = features.fid(sides[0].statistics, sides[1].statistics) if enough else None
            scores[names[k] if k < len(names) else str(k)] = fid
        return scores

    def _noise_floor(self, n: int) -> ImageScores:
        if self.floor is None:
            return NOT_SCORED
        return self._scores(self.features(self.floor, self._drawn(n), f"-{self.settings.seed}"), n, None)

    def _drawn(self, n: int, draw: int = 0) -> torch.Tensor:
        """Return index_N of a draw of ``n`` images of the noise floor, without replacement."""
        assert self.floor is not None
        name = f"evaluation/noise-floor{f'/{draw}' if draw else ''}"
        return stream(self.settings.seed, name, len(self.floor.split)).uniform(1)[:, 0].argsort(stable=True)[:n]

    def _floor_draws(self, n: int) -> tuple[float, ...]:
        """Return FID of ``FLOOR_DRAWS`` draws; nothing where features are wide or the draws would be one set."""
        from mar.metrics import features

        if self.floor is None or self.extractor.feature_width > _WIDE or n >= len(self.floor.split):
            return ()
        every = self.features(self.floor)
        draws = (replace(every, feature_ND=every.feature_ND[self._drawn(n, k)]) for k in range(FLOOR_DRAWS))
        return tuple(features.fid(draw.statistics, self.statistics) for draw in draws)

    def _kid_subset(self, n: int) -> int:
        n_real = self.statistics.n_images if self.real is None else len(self.real)
        return min(KID_SUBSET_SIZE, min(n, n_real or n) // 2)

    def _scores(self, found: Features, n_floor: int, label_N: torch.Tensor | None) -> ImageScores:
        from mar.metrics import features

        seed, extractor = self.settings.seed, self.extractor
        scores = features.inception_score(found, _inception_splits(n_floor), seed)
        if self.real is not None:
            subset, device = self._kid_subset(n_floor), self.settings.device
            scores |= features.distances(found, self.real, subset, seed, device)
            if extractor.cmmd:
                scores["cmmd"] = features.cmmd(found.feature_ND, self.real.feature_ND)
        balance = None
        if extractor.n_classes:
            logits_NK = found.logits_NK[:, extractor.first_class :][:, : extractor.n_classes]
            balance = _balance(logits_NK.argmax(1), extractor.n_classes, label_N)
        if found.statistics.spatial is not None and self.statistics.spatial is not None:
            scores["sfid"] = features.fid(found.statistics.spatial, self.statistics.spatial)
        if self.settings.infinity:
            scores["fid_infinity"] = features.fid_infinity(found, self.statistics, seed)
        fid = features.fid(found.statistics, self.statistics)
        return replace(NOT_SCORED, n_images=len(found), fid=fid, balance=balance, **scores)


def _labels(images: Images | None) -> torch.Tensor | None:
    """Return the classes of all images, read in parts; None where there are none."""
    if images is None:
        return None
    parts = [images.split.batch(index)[1] for index in torch.arange(len(images.split)).split(1000)]
    found = [part for part in parts if part is not None and (part >= 0).any()]
    return torch.cat(found) if len(found) == len(parts) else None


def _inception_splits(n: int) -> int:
    return max(2, min(INCEPTION_SCORE_SPLITS, n // 100))


def _balance(class_N: torch.Tensor, n_classes: int, label_N: torch.Tensor | None) -> Balance:
    from scipy.stats import chisquare

    count_K = torch.bincount(class_N, minlength=n_classes)
    chi2, p_value = chisquare(count_K.numpy())
    agreement = None
    if label_N is not None and (label_N >= 0).any():
        agreement = (class_N == label_N)[label_N >= 0].double().mean().item()
    return Balance(tuple(count_K.tolist()), float(chi2), float(p_value), agreement)


def _warnings(scores: ImageScores, floor: ImageScores, n_real: int, width: int) -> list[str]:
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
    return notes

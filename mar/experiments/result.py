"""The result of a grid: one typed object behind every table, figure and page.

N images · L tokens · K AR steps
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from mar.config import Train
from mar.core.errors import UserError
from mar.core.files import write_atomic
from mar.core.readers import reading
from mar.experiments.grid import SEED
from mar.likelihood.summary import data_frame
from mar.metrics import METRICS
from mar.metrics.base import PlanMap
from mar.metrics.statistics import Difference

if TYPE_CHECKING:
    from pandas import DataFrame

Verdict = Literal["falling", "flat", "overfits", "unknown"]

RESULT = "result.json"
LATE = 0.25  # the last part of a training, in which a curve that has settled no longer falls
END = 0.05  # of the training, at least two validations: a curve that still falls has its lowest value there
PLATEAU = 0.007  # nats per token, .01 bits: less is no fall and no rise

MEANINGS: dict[Verdict, str] = {
    "falling": f"the lowest validation loss of the last {100 * LATE:.0f} % of the training is more than {PLATEAU} "
    f"a token below that of the time before, and lies in its last {100 * END:.0f} %: undertrained, a longer training "
    "would do better",
    "flat": "the curve has settled: it neither falls nor overfits",
    "overfits": f"the last validation loss is more than {PLATEAU} a token above the lowest",
    "unknown": "fewer than two validations",
}


def verdict(iterations: Sequence[int], nats: Sequence[float]) -> Verdict:
    """Return the verdict on a validation curve in nats per token; one that fell late and rose again overfits."""
    if len(nats) < 2:
        return "unknown"
    lowest = min(nats)
    if nats[-1] - lowest > PLATEAU:
        return "overfits"
    early = [value for at, value in zip(iterations, nats, strict=True) if at <= (1.0 - LATE) * iterations[-1]]
    end = max(2, sum(at > (1.0 - END) * iterations[-1] for at in iterations))
    ends_lowest = lowest == min(nats[-end:])
    return "falling" if ends_lowest and (not early or min(early) - lowest > PLATEAU) else "flat"


def sparkline(nats: Sequence[float], most: int = 12) -> str:
    """Return the curve as at most ``most`` bars, each the mean of its part: the lowest up to twice the later range."""
    count, bars = min(most, len(nats)), "▁▂▃▄▅▆▇█"
    edges = [round(k * len(nats) / count) for k in range(count + 1)] if nats else []
    means = [sum(nats[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, late = min(means, default=0.0), max(means[len(means) // 2 :], default=0.0)
    span = max(2.0 * (late - low), PLATEAU)
    return "".join(bars[min(len(bars) - 1, int((value - low) / span * len(bars)))] for value in means)


@dataclass(frozen=True)
class Row:
    """One line of the table: a model along a plan, or a baseline without a model."""

    plan: str  # canonical short text
    ordering: str
    partition: str
    map: PlanMap | None = None  # None: no plan, or one that the model refuses
    model: str = ""  # the name of one of the result's models; empty: a baseline
    settings: dict[str, str] = field(default_factory=dict)  # on the axes; plan, variant, orders if rows differ
    answers: dict[str, Any] = field(default_factory=dict)  # by the metric's name; not asked or failed: none
    seconds: dict[str, float] = field(default_factory=dict)  # of answering, by the metric's name
    difference: Difference | None = None  # to the reference row; None: not compared
    refused: str = ""  # why there can be no such cell
    errors: tuple[str, ...] = ()  # what failed and why, one line each
    unsound: str = ""  # why the row is shown and not compared; empty: it is compared

    # Answers by the names that tables use; None: not asked, or failed.
    likelihood = property(lambda row: row.answers.get("nll"))
    probe = property(lambda row: row.answers.get("probe"))
    generated = property(lambda row: row.answers.get("fid"))
    images = property(lambda row: row.generated and row.generated.scores)
    samples = property(lambda row: row.generated and row.generated.samples)  # a picture, relative to the grid's folder
    animation = property(lambda row: row.generated and row.generated.animation)
    nll_seconds = property(lambda row: row.seconds.get("nll"))
    sampling_seconds = property(lambda row: row.generated and row.generated.seconds)  # by the clock of ``speed``

    @cached_property
    def steps(self) -> int | None:
        """AR steps along the plan."""
        return max(self.map.step_L) + 1 if self.map is not None else self.likelihood and self.likelihood.steps

    @cached_property
    def problem(self) -> str | None:
        """The refusal, the errors, or why the row is not compared, for print."""
        unsound = f"not compared: {self.unsound}" if self.unsound else None
        return f"refused: {self.refused}" if self.refused else "; ".join(self.errors) or unsound

    @cached_property
    def seedless(self) -> dict[str, str]:
        """The settings without the seed."""
        return {axis: name for axis, name in self.settings.items() if axis != SEED}

    @cached_property
    def name(self) -> str:
        """The row's values on the axes, or its plan."""
        return ", ".join(self.settings.values()) or self.plan

    @property
    def images_per_second(self) -> float | None:
        """Generation speed on the machine of the run."""
        return self.generated and self.generated.images_per_second


@dataclass(frozen=True)
class Training:
    """The length of a training, and its curve."""

    iterations: int
    batch_size: int
    scored: int  # the iteration after which the scored weights were taken
    seconds: float  # wall-clock time
    loss_iteration: tuple[int, ...]
    loss_nats: tuple[float, ...]  # per token, where the head's loss is a likelihood
    validation_iteration: tuple[int, ...]
    validation_nats: tuple[float, ...]  # the objective on held-out examples, per token
    examples: int = 0  # of the training split, an epoch; 0: a result from before they were kept

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]], train: Train, scored: int, examples: int = 0) -> Training:
        """Return the training of the logged lines of a run."""
        losses = [line for line in history if "loss_nats_per_token" in line]
        validations = [line for line in history if "validation_nats_per_token" in line]
        clock = [0.0, *(line["seconds"] for line in losses)]  # restarts whenever the run is resumed
        curve = [(line["iteration"], line["validation_nats_per_token"]) for line in validations]
        return cls(
            train.length(curve), train.batch_size, scored,
            math.fsum(now if now < before else now - before for before, now in pairwise(clock)),
            tuple(line["iteration"] for line in losses),
            tuple(line["loss_nats_per_token"] for line in losses),
            tuple(iteration for iteration, _ in curve),
            tuple(nats for _, nats in curve),
            examples,
        )  # fmt: skip

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict of the validation curve on the length of the training."""
        return verdict(self.validation_iteration, self.validation_nats)

    @cached_property
    def lowest_nats(self) -> float | None:
        """The lowest validation loss, nats per token; None without validation."""
        return min(self.validation_nats, default=None)


@dataclass(frozen=True)
class TrainedModel:
    """One cell: a recipe and its model."""

    name: str  # its values on the axes; the recipe's name where there are none
    settings: dict[str, str]  # axis -> value
    recipe: dict[str, Any]  # resolved
    fingerprint: str  # of that recipe; the run folder is runs/FINGERPRINT
    parameters: int  # trainable; 0 where the recipe is refused
    weights: str  # a hash of the weights that were scored; empty: there are none
    training: Training | None  # None when it failed or the recipe is refused
    answers: dict[str, Any] = field(default_factory=dict)  # of the metrics that describe the model, by name

    speed = property(lambda model: model.answers.get("speed"))


@dataclass(frozen=True)
class AblationResult:
    """All figures of the table and the page; models and rows are in the grid's order."""

    name: str
    grid: dict[str, Any]  # the resolved grid file
    axes: tuple[str, ...]  # empty: one model
    models: tuple[TrainedModel, ...]
    data: str  # the name of the data set
    data_fingerprint: str
    environment: dict[str, Any]  # versions, device, revision, command
    reference: str  # of the differences: a plan, or values of some axes
    rows: tuple[Row, ...]
    baselines: tuple[Row, ...]
    seconds: float  # of training and evaluation, summed over models, interruptions included
    ways: tuple[str, ...] = ()  # the settings beside the axes: plan, variant, orders

    __hash__ = object.__hash__  # by identity: what is derived from a result is made once (functools.lru_cache)

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that distinguish rows."""
        return (*self.axes, *self.ways)

    def model_of(self, row: Row) -> TrainedModel | None:
        """Return the model of a row; None for a baseline."""
        return next((model for model in self.models if model.name == row.model), None)

    def save(self, path: Path) -> None:
        """Write JSON aside and rename it."""
        write_atomic(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> AblationResult:
        """Load the result that ``save`` wrote, also compressed (``.gz``) and in earlier layouts.

        Raises:
            UserError: the file is damaged.
        """
        with reading(path, "the result of an ablation"):
            content = path.read_bytes()
            plain = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
            for one in (*plain["rows"], *plain["baselines"], *plain["models"]):
                _move_to_answers(one)
                one["answers"] = {name: METRICS[name].typed(answer) for name, answer in one["answers"].items()}
            return TypeAdapter(cls).validate_python(plain)


def _move_to_answers(one: dict[str, Any]) -> None:
    """Convert a row or a model of a file from before answers were kept by metric: its fields become answers."""
    if "answers" in one:
        return
    pictures = {key: one.pop(key, None) for key in ("sampling_seconds", "samples", "animation")}
    scores, likelihood_seconds = one.pop("images", None), one.pop("nll_seconds", None)
    found = {"nll": one.pop("likelihood", None), "probe": one.pop("probe", None), "speed": one.pop("speed", None)}
    found["fid"] = None if scores is None else {"scores": scores, **pictures}
    one["answers"] = {name: answer for name, answer in found.items() if answer is not None}
    if likelihood_seconds is not None:
        one["seconds"] = {"nll": likelihood_seconds}


def measured_alone(result: AblationResult) -> bool:
    """True if each row has a model of its own whose speed was measured."""
    models = [row.model for row in result.rows]
    return len(set(models)) == len(models) and any(model.speed is not None for model in result.models)


def generation_rates(result: AblationResult) -> list[float | None]:
    """Return generated images per second of each row: of its model, or of the images for its FID."""
    if not measured_alone(result):
        return [row.images_per_second for row in result.rows]
    speed_of = {model.name: model.speed for model in result.models}
    speeds = [speed_of.get(row.model) for row in result.rows]
    return [None if speed is None else speed.sample_images_per_second for speed in speeds]


def read_result(folder: Path) -> AblationResult:
    """Return the result of a grid's folder or a results folder.

    Raises:
        UserError: the folder has no result.
    """
    for name in (RESULT, f"{RESULT}.gz"):
        if (folder / name).is_file():
            return AblationResult.load(folder / name)
    raise UserError(f"{folder} has no {RESULT}: name the --out of mar ablate, or a results folder")


def results(folder: str | Path) -> DataFrame:
    """Return the rows of an ablation or a results folder as a pandas frame, with units in the column names.

    Raises:
        UserError: the folder has no result, or pandas is not installed.
    """
    found = read_result(Path(folder))
    return data_frame([_flat(asdict(row)) for row in (*found.rows, *found.baselines)])


def _flat(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Return numbers and texts of nested mappings, named by their path; settings and answers by their own names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{place}_{key}" if place else key
        if isinstance(value, Mapping):
            flat |= _flat(value, "" if name in ("settings", "answers") else name)
        elif value is None or isinstance(value, (str, int, float)):
            flat[name] = value
    return flat

"""What an ablation gives: one typed result, from which every table, figure and page is made.

N images · L tokens · K AR steps
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from mar.core.errors import UserError
from mar.core.files import write_atomic
from mar.experiments.curve import Verdict, verdict
from mar.experiments.speed import Speed
from mar.likelihood.summary import Likelihood, data_frame
from mar.metrics.probe import Probe
from mar.metrics.result import FidResult

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Difference:
    """A plan's mean NLL minus the reference plan's, on the same images and noise.

    Attributes:
        reference: the plan subtracted.
        n_images: pairs.
        nats_per_image: mean difference; negative: better than the reference.
        interval_nats: bootstrap interval of that mean over images.
        bits_per_dim: the same per dimension of the data; None for latents.
        interval_bits_per_dim: of it.
        confidence: of the intervals.
        p_value: two-sided paired t-test of "no difference".
        p_holm: the same, corrected for all comparisons of the table (Holm 1979).
    """

    reference: str
    n_images: int
    nats_per_image: float
    interval_nats: tuple[float, float]
    bits_per_dim: float | None
    interval_bits_per_dim: tuple[float, float] | None
    confidence: float
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class PlanMap:
    """A plan on its grid: one draw of it when every image gets its own (``random``)."""

    grid: tuple[int, ...]
    random: bool
    rank_L: tuple[int, ...]
    step_L: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One line of the table: a model along a plan, or a baseline that they are measured against.

    Attributes:
        plan: canonical short text.
        ordering, partition: its two parts.
        map: None for a row without a plan, or one that the model refuses.
        model: the name of the model, one of the result's; empty: a baseline.
        settings: the model's values on the axes; beside them the plan, the variant, the number of orders where rows
            differ in these.
        likelihood, difference, images, probe: None when not asked for or failed.
        nll_seconds: wall-clock time of scoring all images.
        sampling_seconds: of generating ``images.generated``, by the clock of the grid's ``speed``.
        samples, animation: pictures, relative to the ablation's folder.
        refused: why there can be no such cell; empty: there is one.
        errors: what failed and why, one line each.
    """

    plan: str
    ordering: str
    partition: str
    map: PlanMap | None = None
    model: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    likelihood: Likelihood | None = None
    difference: Difference | None = None
    images: FidResult | None = None
    probe: Probe | None = None
    nll_seconds: float | None = None
    sampling_seconds: float | None = None
    samples: str | None = None
    animation: str | None = None
    refused: str = ""
    errors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the row is called where it stands alone: its values on the axes, or its plan."""
        return ", ".join(self.settings.values()) or self.plan

    @property
    def images_per_second(self) -> float | None:
        """Generation speed on the machine of the run."""
        if self.images is None or not self.sampling_seconds:
            return None
        return self.images.generated.n_images / self.sampling_seconds


@dataclass(frozen=True)
class Training:
    """How a model was trained: its length, and its curve.

    Attributes:
        scored: the iteration after which the weights that are scored were taken.
        seconds: wall-clock time.
        validation_iteration, validation_nats: the objective on held-out examples, nats per token.
        loss_iteration, loss_nats: the training loss, nats per token where the head's loss is a likelihood.
    """

    iterations: int
    batch_size: int
    scored: int
    seconds: float
    loss_iteration: tuple[int, ...]
    loss_nats: tuple[float, ...]
    validation_iteration: tuple[int, ...]
    validation_nats: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """What the validation curve says about the length of the training."""
        return verdict(self.validation_iteration, self.validation_nats)


@dataclass(frozen=True)
class TrainedModel:
    """One cell: a recipe, and the model that it made.

    Attributes:
        name: its values on the axes; the recipe's name where there are none.
        settings: axis -> value.
        recipe: resolved.
        fingerprint: of that recipe; its run folder is ``runs/FINGERPRINT``.
        parameters: trainable; 0 where the recipe is refused.
        weights: a hash of the weights that were scored; empty: there are none.
        training: None when it failed or the recipe is refused.
        speed: None when not asked for or failed.
    """

    name: str
    settings: dict[str, str]
    recipe: dict[str, Any]
    fingerprint: str
    parameters: int
    weights: str
    training: Training | None
    speed: Speed | None = None


@dataclass(frozen=True)
class AblationResult:
    """Everything that the table and the page show.

    Attributes:
        grid: the resolved grid file.
        axes: names of the axes; empty: one model.
        ways: names of the settings beside them: plan, variant, orders.
        models: the cells, in the grid's order.
        data: name of the data set, with its fingerprint.
        environment: versions, device, revision, command.
        reference: what a row is compared with: a plan, or values of some axes.
        rows: every model along its plans, in the grid's order.
        baselines: what needs no model.
        seconds: of training and evaluation, summed over models; what was done before an interruption counts.
    """

    name: str
    grid: dict[str, Any]
    axes: tuple[str, ...]
    models: tuple[TrainedModel, ...]
    data: str
    data_fingerprint: str
    environment: dict[str, Any]
    reference: str
    rows: tuple[Row, ...]
    baselines: tuple[Row, ...]
    seconds: float
    ways: tuple[str, ...] = ()

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of everything that tells a row from another."""
        return (*self.axes, *self.ways)

    def model_of(self, row: Row) -> TrainedModel | None:
        """The model of a row; None for a baseline."""
        return next((model for model in self.models if model.name == row.model), None)

    def save(self, path: Path) -> None:
        """Write JSON aside and rename it."""
        write_atomic(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> AblationResult:
        """The result that ``save`` wrote; also compressed (``.gz``)."""
        content = path.read_bytes()
        return TypeAdapter(cls).validate_python(
            json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
        )


def results(folder: str | Path) -> DataFrame:
    """The rows of an ablation's ``result.json`` (or a results folder's) as a pandas frame, units in column names.

    Raises:
        UserError: the folder has no result, or pandas is not installed.
    """
    path = next((p for p in (Path(folder) / "result.json", Path(folder) / "result.json.gz") if p.is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no result.json: mar ablate writes it when the grid is done")
    found = AblationResult.load(path)
    return data_frame([_flat(asdict(row)) for row in (*found.rows, *found.baselines)])


def _flat(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Numbers and texts of nested mappings, named by their path; settings and answers by their own names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{place}_{key}" if place else key
        if isinstance(value, Mapping):
            flat |= _flat(value, "" if name in ("settings", "answers") else name)
        elif value is None or isinstance(value, (str, int, float)):
            flat[name] = value
    return flat

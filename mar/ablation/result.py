"""What an ablation gives: one typed result, from which every table, figure and page is made.

N images · L tokens · K AR steps
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mar.evaluation.result import FidResult
from mar.likelihood.score import Likelihood
from mar.training.run_folder import write


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
    """One line of the table: a plan, or a model without any plan that the plans are measured against.

    Attributes:
        plan: canonical short text.
        ordering, partition: its two parts.
        map: None for a row without a plan.
        likelihood, difference, images: None when not asked for or failed.
        nll_seconds, sampling_seconds: wall-clock time; of scoring all images, of generating ``images.generated``.
        samples, animation: pictures, relative to the ablation's folder.
        errors: what failed and why, one line each.
    """

    plan: str
    ordering: str
    partition: str
    map: PlanMap | None = None
    likelihood: Likelihood | None = None
    difference: Difference | None = None
    images: FidResult | None = None
    nll_seconds: float | None = None
    sampling_seconds: float | None = None
    samples: str | None = None
    animation: str | None = None
    errors: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float | None:
        """Generation speed on the machine of the run."""
        if self.images is None or not self.sampling_seconds:
            return None
        return self.images.generated.n_images / self.sampling_seconds


@dataclass(frozen=True)
class Training:
    """How the one model was trained: its size, its length, and its curve.

    Attributes:
        validation_iteration, validation_nats: the objective on held-out examples, nats per token.
        loss_iteration, loss_nats: the training loss, nats per token where the head's loss is a likelihood.
    """

    parameters: int
    iterations: int
    batch_size: int
    seconds: float
    loss_iteration: tuple[int, ...]
    loss_nats: tuple[float, ...]
    validation_iteration: tuple[int, ...]
    validation_nats: tuple[float, ...]


@dataclass(frozen=True)
class AblationResult:
    """Everything that the table and the page show.

    Attributes:
        grid: the resolved grid file.
        recipe: the resolved recipe of the model.
        fingerprint: of that recipe.
        weights: a hash of the weights that were scored.
        data: name of the data set, with its fingerprint.
        environment: versions, device, revision, command.
        rows: the plans, in the grid's order.
        baselines: models without a plan.
        seconds: of evaluation, summed over plans; what was done before an interruption counts.
    """

    name: str
    grid: dict[str, Any]
    recipe: dict[str, Any]
    fingerprint: str
    weights: str
    data: str
    data_fingerprint: str
    environment: dict[str, Any]
    training: Training
    reference: str
    rows: tuple[Row, ...]
    baselines: tuple[Row, ...]
    seconds: float

    def save(self, path: Path) -> None:
        """Write JSON aside and rename it."""
        write(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> AblationResult:
        """The result that ``save`` wrote."""
        return TypeAdapter(cls).validate_python(json.loads(path.read_text()))

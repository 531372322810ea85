"""What a benchmark says, with units in the names; ``as_dict`` is what is written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from mar.bench.caching import CacheGain
from mar.bench.scoring_cost import ScoringCost
from mar.bench.streams import Stream


@dataclass(frozen=True)
class Speed:
    """One contender at one kind of work.

    Attributes:
        contender: "mar", "mar compiled" or "reference".
        seconds: of each round.
        images_per_second: of the median round.
        flops_per_image: matrix products and attention, counted as they are executed, backward pass included; None
            where they were not counted.
        matrix_peak_share: executed operations per second over those of a large matrix product in the same run.
        peak_bytes: most memory in use above what the weights took before; None where it cannot be told.
        ratios: the reference's seconds over this contender's, round by round; none without a reference.
        ratio: their median.
    """

    contender: str
    seconds: tuple[float, ...]
    images_per_second: float
    flops_per_image: float | None
    matrix_peak_share: float | None
    peak_bytes: int | None
    ratios: tuple[float, ...] = ()
    ratio: float | None = None


@dataclass(frozen=True)
class Measurement:
    """``work`` is "train" (an optimiser step), "sample" (generation along the plan) or "nll" (scoring along it)."""

    work: str
    batch: int
    speeds: tuple[Speed, ...]


@dataclass(frozen=True)
class Shares:
    """Where a generation spends its time: the network, the head, and everything else."""

    contender: str
    batch: int
    network_seconds_per_image: float
    head_seconds_per_image: float
    other_seconds_per_image: float


@dataclass(frozen=True)
class Report:
    """Everything ``mar bench`` measures.

    Attributes:
        parameters: the number of each contender's.
        clock: what seconds are: "wall", or "cpu" for the processor time of the process.
        head: the head's sampling options.
        reference: the precision and the head steps of the published code; None without it.
        scoring: what a likelihood costs against its forward passes alone; None where it was not measured.
        cache: what a cache of generation saves; None where it was not measured.
        streams: what the second stream of a causal Transformer costs; none where it was not measured.
        matrix_peak_flops_per_second: of a large square matrix product in this precision, measured in this run.
    """

    recipe: dict[str, Any]
    environment: dict[str, Any]
    precision: str
    clock: str
    matrix_peak_flops_per_second: float
    parameters: dict[str, int]
    tokens: int
    ar_steps: int
    head: dict[str, Any]
    guidance: float
    temperature: float
    reference: tuple[str, int] | None
    measurements: tuple[Measurement, ...]
    shares: tuple[Shares, ...]
    scoring: ScoringCost | None = None
    cache: CacheGain | None = None
    streams: tuple[Stream, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def speed(
    contender: str,
    images: int,
    seconds: tuple[float, ...],
    flops: float | None,
    matrix_peak: float,
    peak_bytes: int | None,
    reference_seconds: tuple[float, ...] = (),
) -> Speed:
    """A contender's ``Speed`` from ``flops`` per round of ``images`` images and the rounds' times."""
    middle = median(seconds)
    ratios = (
        tuple(theirs / ours for theirs, ours in zip(reference_seconds, seconds, strict=True))
        if reference_seconds
        else ()
    )
    return Speed(
        contender,
        seconds,
        images / middle,
        None if flops is None else flops / images,
        None if flops is None else flops / middle / matrix_peak,
        peak_bytes,
        ratios,
        median(ratios) if ratios else None,
    )

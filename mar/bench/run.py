"""The benchmark: every contender at every kind of work, interleaved; its report, and the report as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Group

from mar import build
from mar.bench.contenders import POOL, Inputs, Ours, Setting
from mar.bench.measure import (
    CLOCKS,
    LEAST_ROUNDS,
    Footprint,
    footprint,
    interleave,
    matrix_peak,
    stopwatch,
    synchronise,
)
from mar.bench.reference import Reference, published
from mar.config import Recipe
from mar.core.errors import UserError
from mar.core.files import environment
from mar.core.table import Column, Table
from mar.data.base import Data
from mar.model.model import sampling_options


@dataclass(frozen=True)
class Speed:
    """One contender at one kind of work.

    Attributes:
        contender: "mar", "mar compiled" or "reference".
        seconds: of each round.
        images_per_second: of the median round.
        flops_per_image: executed matrix products and attention, including the backward pass; None: not counted.
        matrix_peak_share: executed operations per second, relative to a large matrix product in the same run.
        peak_bytes: peak memory above the weights; None: unknown.
        ratios: the reference's seconds over this contender's, round by round; () without a reference.
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
    """Time of a generation in the network, in the head and elsewhere."""

    contender: str
    batch: int
    network_seconds_per_image: float
    head_seconds_per_image: float
    other_seconds_per_image: float


@dataclass(frozen=True)
class Report:
    """Everything ``mar bench`` measures.

    Attributes:
        parameters: number of each contender's parameters.
        clock: "wall", or "cpu" for the processor time of the process.
        head: the head's sampling options.
        reference: precision and head steps of the published code; None without it.
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


def speed(
    contender: str, images: int, seconds: tuple[float, ...], flops: float | None, matrix_peak: float,
    peak_bytes: int | None, reference_seconds: tuple[float, ...] = (),
) -> Speed:  # fmt: skip
    """Return a contender's ``Speed`` from ``flops`` per round of ``images`` images and the rounds' times."""
    middle = median(seconds)
    ratios = tuple(theirs / ours for theirs, ours in zip(reference_seconds, seconds, strict=bool(reference_seconds)))
    per_image, of_peak = (None, None) if flops is None else (flops / images, flops / middle / matrix_peak)
    ratio = median(ratios) if ratios else None
    return Speed(contender, seconds, images / middle, per_image, of_peak, peak_bytes, ratios, ratio)


def tables(report: Report) -> Group:
    """Return the report for the terminal."""
    machine, peak = report.environment, report.matrix_peak_flops_per_second / 1e9
    theirs = "" if report.reference is None else "; reference: {}, {} head steps".format(*report.reference)
    counts = ", ".join(f"{name} {count:,}" for name, count in report.parameters.items())
    head = (
        f"{report.recipe['name']}: {report.tokens} tokens, {report.ar_steps} AR steps, guidance {report.guidance:g}, "
        f"{report.precision}{theirs}\nparameters: {counts}\n{machine['device']}, {machine['threads']} threads, "
        f"torch {machine['packages']['torch']}, {report.clock} clock, matrix peak {peak:.0f} GFLOP/s\n"
        "GFLOP: per image; MiB: peak memory above the weights; × reference: median and range over rounds"
    )
    speeds = [(measurement, speed) for measurement in report.measurements for speed in measurement.speeds]
    shares = [Table(_SHARES, report.shares)] if report.shares else []
    return Group(head, Table(_SPEEDS, speeds).without_empty(), *shares)


_SPEEDS: list[Column[tuple[Measurement, Speed]]] = [
    Column("work", lambda row: row[0].work, words=True),
    Column("batch", lambda row: row[0].batch),
    Column("contender", lambda row: row[1].contender, words=True),
    Column("images/s", lambda row: row[1].images_per_second, text=lambda row: f"{row[1].images_per_second:.4g}"),
    Column("GFLOP", lambda row: _gflop(row[1]), text=lambda row: f"{_gflop(row[1]):.4g}"),
    Column("of peak", lambda row: row[1].matrix_peak_share, text=lambda row: f"{row[1].matrix_peak_share:.0%}"),
    Column("MiB", lambda row: None if row[1].peak_bytes is None else row[1].peak_bytes / 2**20, digits=0),
    Column(
        "× reference", lambda row: row[1].ratio,
        text=lambda row: f"{row[1].ratio:.2f} ({min(row[1].ratios):.2f}–{max(row[1].ratios):.2f})",
    ),
]  # fmt: skip
_SHARES: list[Column[Shares]] = [
    Column("sample, s/image", lambda row: row.contender, words=True),
    Column("batch", lambda row: row.batch),
    Column("network", lambda row: row.network_seconds_per_image, digits=4),
    Column("head", lambda row: row.head_seconds_per_image, digits=4),
    Column("other", lambda row: row.other_seconds_per_image, digits=4),
]


def _gflop(speed: Speed) -> float | None:
    return None if speed.flops_per_image is None else speed.flops_per_image / 1e9


WORKS = ("train", "sample", "nll")
Contender = Ours | Reference


def run(
    recipe: Recipe, data: Data, batch: int, seconds: float, works: Sequence[str] = WORKS, compile: bool = False,
    precision: str = "fp32", guidance: float = 1.0, temperature: float = 1.0, head: Mapping[str, Any] | None = None,
    reference: Path | None = None, own_settings: bool = False, clock: str = "wall", rounds: int = LEAST_ROUNDS,
    count: bool = True, say: Callable[[str], None] = lambda line: None,
) -> Report:  # fmt: skip
    """Measure ``works`` at ``batch`` images, about ``seconds`` each and at least ``rounds`` rounds.

    Args:
        compile: measure compiled code beside eager code.
        head: sampling options that replace the head's own.
        reference: a checkout of the published code, measured in the same rounds.
        own_settings: measure that code with its published precision and head steps.
        clock: "wall", or "cpu" for the processor time of this process, on a busy machine.
        count: count operations and memory in a separate run, and time the parts of the reference's generation.
        say: receives the name of each measurement.

    Raises:
        UserError, Unsupported: wrong settings, or a recipe that the published code cannot serve.
    """
    if batch < 1 or seconds < 0:
        raise UserError(f"--batch must be at least 1 and --seconds at least 0, not {batch} and {seconds}")
    if clock not in CLOCKS or (clock == "cpu" and torch.cuda.is_available()):
        raise UserError(f"--clock is wall, or cpu where there is no GPU, not {clock!r}")
    if not works or (wrong := [work for work in works if work not in WORKS]):
        raise UserError(f"--only takes some of {', '.join(WORKS)}, not {', '.join(wrong) if works else 'nothing'}")
    if own_settings and reference is None:
        raise UserError("--reference-as-published is about a checkout: name it with --reference")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = Setting(device, precision, guidance, temperature, clock)
    peak = matrix_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32, clock)
    parts = build.assemble(recipe, data)
    model = parts.model.to(device)
    with (
        published(reference, device) if reference else nullcontext() as module,
        sampling_options(model, dict(head or {})),
    ):
        contenders: list[Contender] = [Ours(parts, setting)]
        if compile:
            contenders.append(Ours(parts, setting, compiled=True))
        if module is not None:
            contenders.append(Reference(module, recipe, model, setting, own_settings))
        inputs = Inputs(parts, batch, setting)
        single = inputs if batch == 1 else Inputs(parts, 1, setting)
        measurements, shares = [], []
        for work in works:
            for sized in [inputs, single] if work == "sample" and batch > 1 else [inputs]:
                say(f"{work}, batch {sized.batch}")
                measurements.append(_measure(work, contenders, sized, seconds, peak, rounds, count))
                if work == "sample":
                    shares += [_shares(c, sized) for c in contenders if count or isinstance(c, Ours)]
        sampling = asdict(model.head.sampling)
    return Report(
        recipe.as_dict(), environment(), precision, clock, peak,
        parameters={contender.name: contender.n_parameters for contender in contenders},
        tokens=len(inputs.grid), ar_steps=int(inputs.plan(0).n_steps_B[0]), head=sampling, guidance=guidance,
        temperature=temperature, measurements=tuple(measurements), shares=tuple(shares),
        reference=next(((c.setting.precision, c.head_steps) for c in contenders if isinstance(c, Reference)), None),
    )  # fmt: skip


def _measure(
    work: str, contenders: Sequence[Contender], inputs: Inputs, seconds: float, peak: float, rounds: int, count: bool
) -> Measurement:
    """Measure one kind of work with every contender that can do it. Compiled code has the counts of eager code."""
    calls = {c.name: getattr(c, work)(inputs) for c in contenders if hasattr(c, work)}
    footprints: dict[str, Footprint] = {}
    for name, call in calls.items():
        if name == "mar compiled":
            footprints[name] = Footprint(footprints["mar"].flops)
            for index in range(POOL if work == "train" else 1):  # every shape is compiled before the clock starts
                call(index)
        elif count:
            with footprint(inputs.setting.device) as footprints[name]:
                call(0)
        else:
            footprints[name] = Footprint()
            if name != Reference.name:  # which captures no graphs
                call(0)
    device = inputs.setting.device  # training on a GPU queues steps without waiting for them
    repeats = POOL if work == "train" and device.type == "cuda" else 1
    times = interleave(calls, seconds, device, inputs.setting.clock, rounds, repeats)
    theirs = times.get(Reference.name, ())
    speeds = (
        speed(
            name,
            inputs.batch,
            times[name],
            found.flops or None,
            peak,
            found.peak_bytes,
            theirs * (name != Reference.name),
        )
        for name, found in footprints.items()
    )
    return Measurement(work, inputs.batch, tuple(speeds))


def _shares(contender: Contender, inputs: Inputs) -> Shares:
    """Time the parts of one more generation. On a GPU this prevents overlap, so speeds are measured without it."""
    device, clock, call = inputs.setting.device, inputs.setting.clock, contender.sample(inputs)
    with stopwatch(contender.parts, device, clock) as parts:
        start = CLOCKS[clock]()
        call(0)
        synchronise(device)
        whole = CLOCKS[clock]() - start
    network, head = parts["network"] / inputs.batch, parts["head"] / inputs.batch
    return Shares(contender.name, inputs.batch, network, head, whole / inputs.batch - network - head)

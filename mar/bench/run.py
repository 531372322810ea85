"""The benchmark: every contender at every kind of work, interleaved; its report, and the report as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Group

from mar import build
from mar.bench import measure
from mar.bench.contenders import POOL, Contender, Inputs, Ours, Setting
from mar.bench.measure import CLOCKS, Footprint
from mar.bench.reference import Reference, published
from mar.config import Recipe
from mar.core.devices import chosen
from mar.core.errors import UserError
from mar.core.files import environment
from mar.core.table import Column, Table, field
from mar.data.base import Data
from mar.model.model import sampling_options

WORKS = ("train", "sample", "nll")


@dataclass(frozen=True)
class Speed:
    """One contender at one kind of work. None: not counted, or without a reference."""

    contender: str  # "mar", "mar compiled" or "reference"
    seconds: tuple[float, ...]  # of each round
    images_per_second: float  # of the median round
    flops_per_image: float | None  # executed matrix products and attention, including the backward pass
    matrix_peak_share: float | None  # executed operations per second over those of a matrix product in the same run
    peak_bytes: int | None  # peak memory above the weights
    ratios: tuple[float, ...] = ()  # the reference's seconds over this contender's, round by round
    ratio: float | None = None  # their median


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
    """Everything ``mar bench`` measures."""

    recipe: dict[str, Any]
    environment: dict[str, Any]
    precision: str
    clock: str  # "wall", or "cpu" for the processor time of the process
    matrix_peak_flops_per_second: float  # of a large square matrix product in this precision, measured in this run
    parameters: dict[str, int]  # number of each contender's parameters
    tokens: int
    ar_steps: int
    head: dict[str, Any]  # the head's sampling options
    guidance: float
    temperature: float
    reference: tuple[str, int] | None  # precision and head steps of the published code; None without it
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


def _number(title: str, path: str, form: str, scale: float = 1.0) -> Column[Any]:
    read = field(f"1.{path}")
    return Column(
        title,
        lambda row: None if read(row) is None else read(row) / scale,
        text=lambda row: form.format(read(row) / scale),
    )


_SPEEDS: list[Column[Any]] = [
    Column("work", field("0.work"), words=True),
    Column("batch", field("0.batch")),
    Column("contender", field("1.contender"), words=True),
    _number("images/s", "images_per_second", "{:.4g}"),
    _number("GFLOP", "flops_per_image", "{:.4g}", 1e9),
    _number("of peak", "matrix_peak_share", "{:.0%}"),
    _number("MiB", "peak_bytes", "{:.0f}", 2**20),
    Column(
        "× reference", field("1.ratio"),
        text=lambda row: f"{row[1].ratio:.2f} ({min(row[1].ratios):.2f}–{max(row[1].ratios):.2f})",
    ),
]  # fmt: skip
_SHARES: list[Column[Any]] = [
    Column("sample, s/image", field("contender"), words=True),
    Column("batch", field("batch")),
    *(Column(part, field(f"{part}_seconds_per_image"), digits=4) for part in ("network", "head", "other")),
]


def run(
    recipe: Recipe, data: Data, batch: int, seconds: float, works: Sequence[str] = WORKS, compile: bool = False,
    precision: str = "fp32", guidance: float = 1.0, temperature: float = 1.0, head: Mapping[str, Any] | None = None,
    reference: Path | None = None, own_settings: bool = False, clock: str = "wall",
    rounds: int = measure.LEAST_ROUNDS, count: bool = True, say: Callable[[str], None] = lambda line: None,
) -> Report:  # fmt: skip
    """Measure ``works`` at ``batch`` images, about ``seconds`` each and at least ``rounds`` rounds.

    The other arguments are those of ``mar bench``; ``say`` receives the name of each measurement.

    Raises:
        UserError, Unsupported: wrong settings, or a recipe that the published code cannot serve.
    """
    if clock not in CLOCKS or (clock == "cpu" and torch.cuda.is_available()):
        raise UserError(f"--clock is wall, or cpu where there is no GPU, not {clock!r}")
    if not works or (wrong := [work for work in works if work not in WORKS]):
        raise UserError(f"--only takes some of {', '.join(WORKS)}, not {', '.join(wrong) if works else 'nothing'}")
    if own_settings and reference is None:
        raise UserError("--reference-as-published is about a checkout: name it with --reference")
    device = chosen()
    setting = Setting(device, precision, guidance, temperature, clock)
    peak = measure.matrix_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32, clock)
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
        sampling = model.head.sampling.told()
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
    device, clock = inputs.setting.device, inputs.setting.clock
    calls = {c.name: getattr(c, work)(inputs) for c in contenders if hasattr(c, work)}
    found: dict[str, Footprint] = {name: Footprint() for name in calls}
    for name, call in calls.items():
        if name == "mar compiled":
            found[name].flops = found["mar"].flops
            for index in range(POOL if work == "train" else 1):  # every shape is compiled before the clock starts
                call(index)
        elif count:
            with measure.footprint(device) as found[name]:
                call(0)
        elif name != Reference.name:  # which captures no graphs
            call(0)
    repeats = POOL if work == "train" and device.type == "cuda" else 1  # training on a GPU queues steps
    times = measure.interleave(calls, seconds, device, clock, rounds, repeats)
    theirs, images = times.get(Reference.name, ()), inputs.batch
    speeds = [
        speed(name, images, times[name], of.flops or None, peak, of.peak_bytes, theirs * (name != Reference.name))
        for name, of in found.items()
    ]
    return Measurement(work, images, tuple(speeds))


def _shares(contender: Contender, inputs: Inputs) -> Shares:
    """Time the parts of one more generation. On a GPU this prevents overlap, so speeds are measured without it."""
    device, clock = inputs.setting.device, inputs.setting.clock
    with measure.stopwatch(contender.parts, device, clock) as parts:
        (whole, *_) = measure.interleave({"": contender.sample(inputs)}, 0.0, device, clock, least=1)[""]
    network, head, whole = (seconds / inputs.batch for seconds in (parts["network"], parts["head"], whole))
    return Shares(contender.name, inputs.batch, network, head, whole - network - head)

"""The benchmark: every contender at every kind of work, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mar import build
from mar.bench.caching import cache_gain
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
from mar.bench.results import Measurement, Report, Shares, speed
from mar.bench.scoring_cost import scoring_cost
from mar.bench.streams import stream_costs
from mar.config import Recipe
from mar.data.base import Data
from mar.errors import UserError
from mar.model import sampling_options
from mar.training.run_folder import environment

WORKS = ("train", "sample", "nll")
ASIDE = ("cache", "streams")  # measured when asked for
Contender = Ours | Reference
Say = Callable[[str], None]


def run(
    recipe: Recipe,
    data: Data,
    batch: int,
    seconds: float,
    works: Sequence[str] = WORKS,
    compile: bool = False,
    precision: str = "fp32",
    guidance: float = 1.0,
    temperature: float = 1.0,
    head: Mapping[str, Any] | None = None,
    reference: Path | None = None,
    own_settings: bool = False,
    clock: str = "wall",
    budget: int | None = None,
    rounds: int = LEAST_ROUNDS,
    count: bool = True,
    say: Say = lambda line: None,
) -> Report:
    """Measure ``works`` at ``batch`` images, about ``seconds`` each and at least ``rounds`` rounds.

    Args:
        compile: measure compiled code beside eager code.
        head: sampling options of the head, in place of its own.
        reference: a checkout of the published code, measured in the same rounds.
        own_settings: of that code, as it was published: its precision and head steps, beside ours.
        clock: "wall", or "cpu" for the processor time of this process: on a machine that is busy with other things.
        budget: bytes of activations of a likelihood; None: what suits the device.
        count: count operations and memory in a run of their own, and take the reference's generation apart as well.
        say: told what is being measured.

    Raises:
        UserError, Unsupported: wrong settings, or a recipe that the published code cannot serve.
    """
    _check(batch, seconds, works, precision, clock)
    if own_settings and reference is None:
        raise UserError("--reference-as-published is about a checkout: name it with --reference")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = Setting(device, precision, guidance, temperature, clock)
    peak = matrix_peak(device, torch.bfloat16 if precision == "bf16" else torch.float32, clock)
    model = build.model(recipe, data).to(device)
    with (
        published(reference, device) if reference else nullcontext() as module,
        sampling_options(model, dict(head or {})),
    ):
        contenders: list[Contender] = [Ours(recipe, model, setting)]
        if compile:
            contenders.append(Ours(recipe, model, setting, compiled=True))
        if module is not None:
            contenders.append(Reference(module, recipe, model, setting, own_settings))
        inputs = Inputs(recipe, data, model, batch, setting)
        single = inputs if batch == 1 else Inputs(recipe, data, model, 1, setting)
        measurements, shares = [], []
        for work in [work for work in works if work in WORKS]:
            for sized in [inputs, single] if work == "sample" and batch > 1 else [inputs]:
                say(f"{work}, batch {sized.batch}")
                measurements.append(_measure(work, contenders, sized, seconds, peak, rounds, count))
                if work == "sample":
                    shares += [
                        _shares(contender, sized) for contender in contenders if count or isinstance(contender, Ours)
                    ]
        scoring = scoring_cost(model, inputs, seconds, budget) if "nll" in works else None
        cache = cache_gain(model, inputs, seconds) if "cache" in works else None
        streams = stream_costs(model, inputs, seconds) if "streams" in works else ()
        sampling = asdict(model.head.sampling)
    return Report(
        recipe=recipe.as_dict(),
        environment=environment(),
        precision=precision,
        clock=clock,
        matrix_peak_flops_per_second=peak,
        parameters={contender.name: contender.n_parameters for contender in contenders},
        tokens=len(inputs.grid),
        ar_steps=int(inputs.plan(0).n_steps_B[0]),
        head=sampling,
        guidance=guidance,
        temperature=temperature,
        reference=next(((c.setting.precision, c.head_steps) for c in contenders if isinstance(c, Reference)), None),
        measurements=tuple(measurements),
        shares=tuple(shares),
        scoring=scoring,
        cache=cache,
        streams=streams,
    )


def _measure(
    work: str,
    contenders: Sequence[Contender],
    inputs: Inputs,
    seconds: float,
    peak: float,
    rounds: int,
    count: bool,
) -> Measurement:
    """One kind of work, by all who can do it. Compiled code executes what the eager one is counted to."""
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
    speeds = []
    for name in calls:
        found = footprints[name]
        rival = () if name == Reference.name else theirs
        speeds.append(speed(name, inputs.batch, times[name], found.flops or None, peak, found.peak_bytes, rival))
    return Measurement(work, inputs.batch, tuple(speeds))


def _shares(contender: Contender, inputs: Inputs) -> Shares:
    """One more generation, its parts timed: on a GPU this costs its overlap, so the speeds are measured without."""
    device, clock, call = inputs.setting.device, inputs.setting.clock, contender.sample(inputs)
    with stopwatch(contender.parts, device, clock) as parts:
        start = CLOCKS[clock]()
        call(0)
        synchronise(device)
        whole = CLOCKS[clock]() - start
    network, head = parts["network"] / inputs.batch, parts["head"] / inputs.batch
    return Shares(contender.name, inputs.batch, network, head, whole / inputs.batch - network - head)


def _check(batch: int, seconds: float, works: Sequence[str], precision: str, clock: str) -> None:
    if batch < 1 or seconds < 0:
        raise UserError(f"--batch must be at least 1 and --seconds at least 0, not {batch} and {seconds}")
    if clock not in CLOCKS or (clock == "cpu" and torch.cuda.is_available()):
        raise UserError(f"--clock is wall, or cpu where there is no GPU, not {clock!r}")
    if precision not in ("fp32", "bf16"):
        raise UserError(f"--precision is fp32 or bf16, not {precision!r}")
    if not works or (wrong := [work for work in works if work not in (*WORKS, *ASIDE)]):
        raise UserError(
            f"--only takes some of {', '.join((*WORKS, *ASIDE))}, not {', '.join(wrong) if works else 'nothing'}"
        )

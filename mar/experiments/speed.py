"""What a model costs: floating-point operations, and images a second in training and in generation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch

from mar import build
from mar.bench.contenders import Inputs, Ours, Setting
from mar.bench.measure import footprint, interleave
from mar.config import Recipe
from mar.core.processes import resolve_precision
from mar.data.base import Data
from mar.experiments.evaluations import SpeedEvaluation


@dataclass(frozen=True)
class Speed:
    """An untrained model of the recipe at work on random tokens: no cost here depends on what it has learned.

    Attributes:
        batch: images at a time.
        device, threads, clock: what it was measured on and with.
        train_images_per_second: forward, backward and the optimiser's step along the recipe's own plan and task.
        sample_images_per_second: whole generations along the plan, without guidance.
        train_flops_per_image: matrix products, convolutions and attention of one training step, divided by ``batch``.
        sample_flops_per_image: of one generation, likewise.
    """

    batch: int
    device: str
    threads: int
    clock: str
    train_images_per_second: float
    sample_images_per_second: float
    train_flops_per_image: float
    sample_flops_per_image: float


def measure(recipe: Recipe, data: Data, wanted: SpeedEvaluation) -> Speed:
    """Medians over rounds in which training and generation alternate."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    contender, inputs = _contender(recipe, data, wanted.batch, device, wanted.clock)
    works, flops = {"train": contender.train(inputs), "sample": contender.sample(inputs)}, {}
    for name, work in works.items():
        with footprint(device) as found:
            work(0)
        flops[name] = found.flops / wanted.batch
    times = interleave(works, wanted.seconds, device, wanted.clock)
    rate = {name: wanted.batch / median(values) for name, values in times.items()}
    return Speed(
        batch=wanted.batch,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        clock=wanted.clock,
        train_images_per_second=rate["train"],
        sample_images_per_second=rate["sample"],
        train_flops_per_image=flops["train"],
        sample_flops_per_image=flops["sample"],
    )


def seconds_per_iteration(recipe: Recipe, data: Data, iterations: int = 2) -> float:
    """Wall-clock time of a training iteration, from the second few of a short probe."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    contender, inputs = _contender(recipe, data, recipe.train.batch_size, device, "wall")
    work = contender.train(inputs)
    work(0)
    started = time.perf_counter()
    for index in range(iterations):
        work(1 + index)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / iterations


def _contender(recipe: Recipe, data: Data, batch: int, device: torch.device, clock: str) -> tuple[Ours, Inputs]:
    setting = Setting(device, resolve_precision(recipe.train.precision), 1.0, 1.0, clock)
    parts = build.assemble(recipe, data)
    parts.model.to(device)
    return Ours(parts, setting), Inputs(parts, batch, setting)

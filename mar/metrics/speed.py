"""The cost of a model: floating-point operations, and images per second in training and in generation."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from pydantic import Field

from mar import build
from mar.bench.contenders import Inputs, Ours, Setting
from mar.bench.measure import footprint, interleave
from mar.config import Recipe, Section
from mar.core.devices import chosen, described
from mar.core.processes import resolve_precision, threads
from mar.core.table import Column, fields
from mar.data.base import Data
from mar.metrics.base import Metric, Question, Subject, Workspace


@dataclass(frozen=True)
class Speed:
    """An untrained model of the recipe on random tokens: no cost here depends on the weights."""

    batch: int  # images at a time
    device: str
    threads: int
    clock: str
    train_images_per_second: float  # forward, backward and the optimiser's step along the recipe's own plan and task
    sample_images_per_second: float  # whole generations along the plan, without guidance
    train_flops_per_image: float  # matrix products, convolutions and attention of one training step, by ``batch``
    sample_flops_per_image: float  # of one generation, likewise


class TrainingSpeed(Metric):
    """Training steps and generations along each model's own plan, one model at a time, nothing else at work."""

    class Options(Section):
        batch: int = Field(default=64, ge=1, description="images at a time")
        seconds: float = Field(default=1.0, ge=0, description="of measuring a model, at least; three rounds at least")
        clock: Literal["wall", "cpu"] = Field(default="wall", description="cpu: for a machine busy with other things")

    name, title, Answer, alone = "speed", "speed", Speed, True
    options: Options

    def question(self, subject: Subject) -> Question:
        return Question(self.name, content={"recipe": subject.recipe, **self.options.model_dump(mode="json")})

    def compute(self, question: Question, at: Workspace) -> Speed:
        """Return medians over rounds in which training and generation alternate."""
        o, device = self.options, chosen()
        contender, inputs = _contender(at.recipe, at.data, o.batch, device, o.clock)
        works, flops = {"train": contender.train(inputs), "sample": contender.sample(inputs)}, {}
        for name, work in works.items():
            with footprint(device) as found:
                work(0)
            flops[name] = found.flops / o.batch
        times = interleave(works, o.seconds, device, o.clock)
        rate = {name: o.batch / median(values) for name, values in times.items()}
        where = "cpu" if device.type == "cpu" else described(device.type)
        return Speed(o.batch, where, torch.get_num_threads(), o.clock, *rate.values(), *flops.values())

    @classmethod
    def columns(cls, answers: Sequence[Speed]) -> Sequence[Column[Speed]]:
        return [
            Column("training, MFLOP/image", lambda answer: answer.train_flops_per_image / 1e6, "lower", 1),
            Column("generation, MFLOP/image", lambda answer: answer.sample_flops_per_image / 1e6, "lower", 1),
            Column("training, images/s", lambda answer: answer.train_images_per_second, "higher", 1),
            Column("generation, images/s", lambda answer: answer.sample_images_per_second, "higher", 1),
        ]

    @classmethod
    def data_columns(cls) -> Sequence[Column[Speed]]:
        return fields(**{name: name for name in Speed.__dataclass_fields__})

    @classmethod
    def notes(cls, answers: Sequence[Speed], grid: Mapping[str, Any]) -> list[str]:
        where = " and ".join(sorted({f"{s.device}, {s.threads} thread(s), {s.clock} time" for s in answers}))
        return [
            f"Costs: batches of {answers[0].batch}, one model at a time ({where}); training is forward, backward and "
            "the optimiser, generation is along the model's own plan. FLOP: matrix products, convolutions, attention "
            "and recurrent layers, as executed."
        ]


def seconds_per_iteration(recipe: Recipe, data: Data, iterations: int = 2) -> float:
    """Return the time of a training iteration, from the forward and backward passes of a short probe.

    On a CPU it is the processor time of one thread, which depends neither on other programs nor on threads that wait
    for each other, divided by the threads of a training; on a GPU, wall-clock.
    """
    device, at_once = chosen(), torch.get_num_threads()
    contender, inputs = _contender(recipe, data, recipe.train.batch_size, device, "wall")
    on_gpu, times = device.type == "cuda", []
    clock = time.perf_counter if on_gpu else time.process_time
    contender.model.train()
    with threads(at_once if on_gpu else 1):
        for index in range(1 + iterations):
            started = clock()
            with contender.setting.autocast():
                loss = contender.loss(inputs, index)
            loss.backward()
            if on_gpu:
                torch.cuda.synchronize(device)
            times.append(clock() - started)
    return sum(times[1:]) / iterations / (1 if on_gpu else at_once)


def cost_key(recipe: Recipe) -> str:
    """Return a text that is equal for recipes whose iterations cost the same: they differ in seed, length or rates."""
    plain = recipe.as_dict()
    train = {key: plain["train"].get(key) for key in ("batch_size", "objective", "precision", "compile")}
    return json.dumps({**plain, "name": "", "seed": 0, "train": train}, sort_keys=True, default=str)


def _contender(recipe: Recipe, data: Data, batch: int, device: torch.device, clock: str) -> tuple[Ours, Inputs]:
    setting = Setting(device, resolve_precision(recipe.train.precision), 1.0, 1.0, clock)
    parts = build.assemble(recipe, data)
    parts.model.to(device)
    return Ours(parts, setting), Inputs(parts, batch, setting)

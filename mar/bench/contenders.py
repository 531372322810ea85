"""Shapes to measure, inputs shared by all contenders, and our model (eager or compiled) as a contender.

Speed depends on shapes alone, so a shape is a recipe whose data set is a description without examples. The published
code as a contender is in ``reference``.

B batch · L tokens · E token channels
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mar import build, config
from mar.config import Recipe
from mar.config import Train as TrainSection
from mar.core.errors import unknown
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.data.base import Data, TensorSplit
from mar.likelihood.chain import token_log_prob
from mar.model.walk import empty_tokens
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from mar.training.objectives import Losses, Task
from mar.training.optimizers import make_optimizer
from mar.training.parts import Parts
from orderings import Plan

# The published models on random tokens, in 64 AR steps: the shape is a recipe, and speed depends on no data.
SHAPES = {f"mar-{size}": f"imagenet256-mar-{size}" for size in ("base", "large", "huge")}
_LATENTS = DataSpec((16, 16, 16), 256, 1000)
_BARE = ("data=none", "tokenizer=patches", "tokenizer.patch=1", "partition=cosine", "partition.k=64")


def read(name: str, overrides: Sequence[str]) -> tuple[Recipe, Data]:
    """Read the recipe and the data of one of ``SHAPES``, of a shipped recipe or of a recipe file.

    Raises:
        UserError: no such name, a wrong key or value, or a recipe whose data files are missing.
    """
    if name not in SHAPES:
        if not name.endswith((".yaml", ".yml")) and name not in (known := config.recipe_names()):
            raise unknown("recipe", name, [*SHAPES, *known])
        recipe = config.read(name, overrides)
        return recipe, build.data(recipe)
    empty = TensorSplit(torch.zeros(0, *_LATENTS.shape, dtype=torch.uint8))
    recipe = config.read(SHAPES[name], [f"name={name}", *_BARE, *overrides])
    return recipe, Data(name, _LATENTS, empty, empty, empty, fingerprint="none")


Work = Callable[[int], None]  # takes the round's number
POOL = 4  # different training batches; each has its own number of known tokens


@dataclass(frozen=True)
class Setting:
    """Settings shared by all contenders."""

    device: torch.device
    precision: str
    guidance: float
    temperature: float
    clock: str = "wall"

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Example:
    """One training batch: random tokens, classes, and the task of each row."""

    token: torch.Tensor
    label_B: torch.Tensor
    drop_B: torch.Tensor
    task: Task


class Inputs:
    """The same random inputs for every contender, keyed by the round's number."""

    def __init__(self, parts: Parts, batch: int, setting: Setting) -> None:
        self.parts, self.batch, self.setting = parts, batch, setting
        self.model, self.n_classes = parts.model, parts.model.n_classes
        self.grid = parts.model.tokenizer.lattice
        self.examples = [self._example(index) for index in range(POOL)]

    def example(self, index: int) -> Example:
        return self.examples[index % POOL]

    def plan(self, index: int) -> Plan:
        noise = stream(index, "bench/order", self.batch)
        plan = Plan.sample(self.parts.ordering, self.parts.partition, self.grid, self.batch, noise)
        return plan.to(self.setting.device)

    def labels(self, index: int) -> torch.Tensor:
        u_B = stream(index, "bench/label", self.batch).uniform(1)[:, 0]
        label_B = (u_B * self.n_classes).long() if self.n_classes else torch.full((self.batch,), -1)
        return label_B.to(self.setting.device)

    def _example(self, index: int) -> Example:
        device, noise = self.setting.device, stream(index, "bench/token", self.batch)
        token, kind = empty_tokens(self.model, self.batch, "cpu"), self.model.tokenizer.token
        if isinstance(kind, Categories):
            token = (noise.uniform(token.shape[1]) * kind.vocabulary).long()
        else:
            token = noise.normal(token[0].numel()).reshape(token.shape)
        plan, position_B = self.plan(index).to("cpu"), torch.arange(self.batch)
        if self.model.network.shares_plan:  # as in training
            plan = plan.rows(torch.zeros_like(position_B))
        task = self.parts.objective.task(plan, position_B, stream(index, "bench/mask", 1), self.model.network.one_pass)
        drop_B = stream(index, "bench/drop", self.batch).uniform(1)[:, 0] < self.parts.recipe.train.label_drop
        return Example(token.to(device), self.labels(index), drop_B.to(device), task.to(device))


class Contender:
    """A model with its optimiser. A subclass returns the loss of a batch, a generation, and perhaps a scoring."""

    name: str
    parts: Mapping[str, Sequence[tuple[Any, str]]]  # "network" and "head" -> (object, method) at work in a generation

    def __init__(self, model: nn.Module, train: TrainSection, setting: Setting) -> None:
        self.model: Any = model  # ours, or the published one
        self.train_section, self.setting = train, setting
        self.optimizer: torch.optim.Optimizer | None = None
        self.n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)

    def loss(self, inputs: Inputs, index: int) -> torch.Tensor:
        raise NotImplementedError

    def train(self, inputs: Inputs) -> Work:
        """Return an optimiser step: forward, backward, AdamW."""
        optimizer = self.optimizer = self.optimizer or make_optimizer(self.model, self.train_section)

        def work(index: int) -> None:
            self.model.train()
            with self.setting.autocast():
                loss = self.loss(inputs, index)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return work

    def sample(self, inputs: Inputs) -> Work:
        """Return a generation of a batch along a plan."""
        raise NotImplementedError


class Ours(Contender):
    """Our model, or a compiled copy of it."""

    def __init__(self, parts: Parts, setting: Setting, compiled: bool = False) -> None:
        self.name = "mar compiled" if compiled else "mar"
        model = copy.deepcopy(parts.model) if compiled else parts.model
        if compiled:
            model.compile_parts()
        super().__init__(model, parts.recipe.train, setting)
        self.losses, network = Losses(model, parts.objective), model.network
        self.parts = {"network": [(network, "observe"), (network, "query")], "head": [(model.head, "sample")]}

    def loss(self, inputs: Inputs, index: int) -> torch.Tensor:
        example, noise = inputs.example(index), stream(index, "bench/head", inputs.batch, self.setting.device)
        loss_B = self.losses(example.token, example.label_B, example.drop_B, example.task, noise)
        return loss_B.sum() / example.task.denominator

    def sample(self, inputs: Inputs) -> Work:
        def work(index: int) -> None:
            self.model.eval()
            noise = stream(index, "bench/sample", inputs.batch, self.setting.device)
            guidance = Guidance(self.setting.guidance, "linear")
            with self.setting.autocast():
                generate(
                    self.model, inputs.plan(index), inputs.labels(index), noise, guidance, self.setting.temperature
                )

        return work

    def nll(self, inputs: Inputs) -> Work:
        """Return a scoring of every conditional of a plan with the head's default likelihood."""

        def work(index: int) -> None:
            self.model.eval()
            noise, example = stream(index, "bench/nll", inputs.batch, self.setting.device), inputs.example(index)
            with self.setting.autocast():
                token_log_prob(self.model, example.token, inputs.plan(index), example.label_B, noise)

        return work

"""Compiled code computes what eager code computes, dropout included."""

from __future__ import annotations

import copy

import pytest
import torch

from mar import build
from mar.bench import contenders
from mar.bench.contenders import Inputs, Setting
from mar.core.noise import stream
from mar.sampling.samplers import generate
from mar.training.objectives import AnyOrder, Losses

SMALL = [
    *(f"network.{part}_{what}" for part in ("encoder", "decoder") for what in ("width=16", "depth=2", "heads=2")),
    *("network.buffer=2", "head.width=16", "head.depth=1", "partition.k=8"),
]
SETTING = Setting(torch.device("cpu"), "fp32", 1.0, 1.0)


def gradients(model, example):
    torch.manual_seed(0)  # dropout's
    model.zero_grad()
    noise = stream(0, "head", len(example.label_B))
    loss_B = Losses(model, AnyOrder())(example.token, example.label_B, example.drop_B, example.task, noise)
    loss_B.sum().backward()
    return {"loss": loss_B.detach(), **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.slow
def test_compiled_code_agrees_with_eager_code() -> None:
    dropout = ["network.attention_dropout=0", "network.projection_dropout=0.1"]
    recipe, data = contenders.read("mar-base", [*SMALL, *dropout])
    parts = build.assemble(recipe, data)
    eager = parts.model
    for parameter in eager.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    compiled = copy.deepcopy(eager)
    compiled.compile_parts()
    eager.network.buckets = compiled.network.buckets  # dropout is drawn for padding too
    inputs = Inputs(parts, 3, SETTING)
    for index in (0, 1):
        expected, found = (gradients(model.train(), inputs.example(index)) for model in (eager, compiled))
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4, msg=name)
    plan, noise = inputs.plan(0), stream(0, "sample", 3)
    expected, found = (generate(model.eval(), plan, inputs.labels(0), noise) for model in (eager, compiled))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

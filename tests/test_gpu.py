"""On a GPU everything computes what it computes on a CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from mar import build, config
from mar.core.noise import stream
from mar.core.tokens import Vectors
from mar.heads import HEADS
from mar.likelihood.chain import token_log_prob
from mar.model.model import Model
from mar.networks import NETWORKS
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from mar.training.objectives import AnyOrder, Losses
from mar.training.optimizers import make_optimizer
from orderings import Grid, Plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")

B = 5
WITH_HEADS = [("masked-transformer", head) for head in sorted(HEADS)]
CELLS = [*((network, "categorical") for network in sorted(NETWORKS)), *WITH_HEADS]


def recipe_of(network: str, head: str) -> config.Recipe:
    vectors = issubclass(HEADS[head].tokens, Vectors)
    changes = [f"network={network}", f"head={head}", "tokenizer=patches" if vectors else "tokenizer=pixels"]
    changes += ["ordering=raster", "train.mask_ratio=plan"]
    for family, kind in (("network", network), ("head", head)):
        changes += [
            f"{family}.{key}={list(value) if isinstance(value, tuple) else value}"
            for key, value in build.FAMILIES[family][kind].test_options.items()
        ]
    return config.read("digits", changes)


def models(network: str, head: str) -> tuple[config.Recipe, Model, Model]:
    recipe = recipe_of(network, head)
    model = build.assemble(recipe).model.eval()
    torch.manual_seed(0)
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    sampling = type(model.head.sampling)(**model.head.test_sampling)
    model.head.sampling, model.head.scoring = sampling, type(model.head.scoring)(**model.head.test_scoring)
    return recipe, model, copy.deepcopy(model).cuda()


def inputs(recipe: config.Recipe) -> tuple[torch.Tensor, torch.Tensor, Plan]:
    data = build.data(recipe)
    x, label_B = data.test.batch(torch.arange(B))
    assert label_B is not None
    grid = Grid(build.assemble(recipe, data).model.tokenizer.shape)
    return x, label_B, Plan.sample(build.ordering(recipe), build.partition(recipe), grid, B, stream(0, "plan", B))


@pytest.mark.parametrize("network, head", CELLS)
def test_likelihoods_and_samples_are_those_of_a_cpu(network: str, head: str) -> None:
    recipe, *pair = models(network, head)
    x, label_B, plan = inputs(recipe)
    found = []
    for model, device in zip(pair, ("cpu", "cuda"), strict=True):
        token = model.tokenizer.encode(x.to(device), stream(0, "dequantise", B, device))
        noise, label = stream(0, "noise", B, device), label_B.to(device)
        nats_BL = token_log_prob(model, token, plan.to(device), label, noise).nats_BL
        drawn = generate(model, plan.to(device), label, noise, Guidance(1.5))
        found.append((nats_BL.cpu(), drawn.cpu()))
    (nats, drawn), (gpu_nats, gpu_drawn) = found
    torch.testing.assert_close(gpu_nats, nats, rtol=1e-3, atol=1e-3)
    if drawn.is_floating_point():
        torch.testing.assert_close(gpu_drawn, drawn, rtol=1e-2, atol=1e-2)
    else:
        assert (gpu_drawn == drawn).float().mean() > 0.97  # one flip changes what follows


@pytest.mark.parametrize("network, head", CELLS)
def test_a_training_step_in_bfloat16_is_near_the_one_in_float32_on_a_cpu(network: str, head: str) -> None:
    recipe, *pair = models(network, head)
    x, label_B, plan = inputs(recipe)
    losses = []
    for model, device in zip(pair, ("cpu", "cuda"), strict=True):
        one_pass, iteration = model.network.one_pass, stream(0, "ratio", 1)
        task = build.objective(recipe).task(plan, torch.arange(B), iteration, one_pass).to(device)
        token, noise = model.tokenizer.encode(x.to(device)), stream(0, "head", B, device)
        optimizer = make_optimizer(model, recipe.train)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            drop_B = torch.zeros(B, dtype=torch.bool, device=device)
            loss = Losses(model, AnyOrder())(token, label_B.to(device), drop_B, task, noise).sum() / task.denominator
        loss.backward()
        optimizer.step()
        assert all(bool(p.isfinite().all()) for p in model.parameters())
        losses.append(float(loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=0.05, abs=0.05)

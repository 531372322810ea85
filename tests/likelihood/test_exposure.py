"""Exposure bias: none where the data are the model's own, misfit alone where the past does not matter."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from mar import build, config
from mar.core.errors import UserError
from mar.core.noise import Noise, stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead
from mar.likelihood.chain import score
from mar.likelihood.exposure import Exposure, exposure
from mar.model.model import Model
from mar.sampling.samplers import generate
from orderings import Grid, Plan, PlanSpec
from tests.helpers import OnePass

TINY = [
    "network.encoder_width=16", "network.encoder_depth=1", "network.encoder_heads=2", "network.decoder_width=16",
    "network.decoder_depth=1", "network.decoder_heads=2",
]  # fmt: skip
N = 100
NETWORKS = ("step by step", "one pass")


def model_of(network: str, *overrides: str) -> Model:
    recipe = config.read("digits", [*TINY, *overrides])
    built = build.assemble(recipe).model
    torch.manual_seed(0)
    if network == "one pass":
        head = CategoricalHead(8, Categories(17), CategoricalHead.Options())
        built = Model(built.tokenizer, OnePass((8, 8), OnePass.Options()), head)
    for parameter in built.parameters():  # far from uniform predictions, so that the past matters
        parameter.data += 0.3 * torch.randn_like(parameter)
    return built.eval()


def draw(text: str, model: Model, noise: Noise) -> Plan:
    return Plan.sample(*PlanSpec.parse(text), Grid(model.tokenizer.shape), len(noise), noise)


def compare(model: Model, images: torch.Tensor, text: str, **options) -> Exposure:
    return exposure(model, images, None, partial(draw, text, model), partial(generate, model), text, **options)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("text", ["random/linear:16", "raster/sizes:1,20,3,40"])
def test_a_model_that_made_the_data_shows_neither_misfit_nor_exposure(network, text):
    model = model_of(network)
    plan = draw(text, model, stream(0, "nll", N).at("order"))  # along the orders that it will be scored along
    images = model.tokenizer.decode(generate(model, plan, torch.full((N,), -1), stream(7, "data", N)))
    result = compare(model, images, text)
    for curve in (result.misfit_summed, result.exposure_summed):
        assert np.all(np.abs(curve.nats) <= 4.5 * np.array(curve.standard_error) + 0.02)  # a rare token may be unseen
    assert result.exposure.nats[0] == pytest.approx(0.0, abs=1e-6), "there is no past yet"
    assert max(result.exposure.standard_error[1:]) > 1e-3, "the past does matter"


@pytest.mark.parametrize("network", NETWORKS)
def test_data_that_the_model_would_never_make_show_both(network):
    model, text = model_of(network), "random/linear:8"
    images = torch.randint(17, (N, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    result = compare(model, images, text)
    assert result.misfit_summed.nats[-1] > 10.0 * result.misfit_summed.standard_error[-1]
    nll = score(model, images, None, partial(draw, text, model), text)
    assert result.data.nats == pytest.approx(nll.nats_per_step, rel=1e-5)
    assert result.tokens_per_step == nll.tokens_per_step
    parts = np.array(result.own.nats) - np.array(result.data.nats)
    assert result.difference.nats == pytest.approx(parts.tolist(), abs=1e-6)


def test_heads_without_an_entropy_estimate_it():
    model, text = model_of("step by step", "tokenizer=patches", "head=gaussian-mixture"), "raster"
    images = build.data(config.read("digits")).validation.batch(torch.arange(60))[0]
    result = compare(model, images, text)
    assert result.kind == "exact" and len(result.data.nats) == 4
    error = np.hypot(result.own.standard_error, result.expected_after_own.standard_error)
    assert np.all(np.abs(np.subtract(result.own.nats, result.expected_after_own.nats)) < 5.0 * error)


def test_chunks_of_any_size_give_the_same_figures():
    model, seen = model_of("step by step"), []
    images = build.data(config.read("digits")).validation.batch(torch.arange(4))[0]
    whole = compare(model, images, "raster/linear:8")
    small = compare(model, images, "raster/linear:8", budget=1, progress=lambda done, rows: seen.append((done, rows)))
    assert small.data.nats == pytest.approx(whole.data.nats, rel=1e-4)
    assert seen[-1] == (4 * 8 * 3, 4 * 8 * 3)
    with pytest.raises(UserError, match="at least 2 images"):
        compare(model, images[:1], "raster")

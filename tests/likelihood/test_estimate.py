"""Sub-sampled steps: unbiased, with intervals that cover the truth as often as they say."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.tokens import Categories, Vectors
from mar.heads.categorical import CategoricalHead
from mar.likelihood.chain import conditionals, score
from mar.likelihood.estimate import EVERY_STEP, Estimator
from mar.likelihood.summary import Conditionals, Likelihood, summarise
from mar.model.model import Model
from mar.tokenizers.base import Tokenizer
from orderings import Grid, Plan, PlanSpec
from tests.helpers import OnePass, StepByStep

GRID = Grid((2, 4))


class Binary(Tokenizer):
    """Images (N, 1, 2, 4) of two levels, a token each."""

    shape, token, dimensions = GRID.shape, Categories(2), 8

    def encode(self, x, noise=None):
        return x.flatten(1).long()


def tiny(network: type = StepByStep) -> Model:
    torch.manual_seed(5)
    head = CategoricalHead(8, Categories(2), CategoricalHead.Options())
    model = Model(Binary(), network(GRID.shape, network.Options()), head).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # far from uniform, so that steps differ
    return model


def draw(text: str):
    return lambda noise: Plan.sample(*PlanSpec.parse(text), GRID, len(noise), noise)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Every image there is, 16 times over, shuffled: the population whose mean is the truth."""
    every = torch.cartesian_prod(*[torch.arange(2)] * 8).reshape(-1, 1, 2, 4)
    return every.repeat(16, 1, 1, 1)[torch.randperm(4096, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("text", ["exact", "steps:8", "steps:12"])
def test_an_estimator_is_written_as_it_is_read(text):
    assert str(Estimator.parse(text)) == text


@pytest.mark.parametrize("text", ["steps", "steps:0", "steps:-3", "steps:2:odd", "steps:8:antithetic", "all", "8"])
def test_what_is_no_estimator_is_refused(text):
    with pytest.raises(UserError, match="steps:8"):
        Estimator.parse(text)


@pytest.mark.parametrize("n", [1, 3, 4, 7])
def test_every_step_has_an_expected_weight_of_one(n):
    n_steps_B = torch.tensor([11, 64, 7, 3, 0]).repeat_interleave(20_000)
    weight_BK = Estimator(n).weights(n_steps_B, stream(0, "steps", len(n_steps_B)))
    assert weight_BK is not None
    for steps, row_BK in zip((11, 64, 7, 3, 0), weight_BK.split(20_000), strict=True):
        assert (row_BK[:, steps:] == 0).all() and ((row_BK > 0).sum(1) == min(n, steps)).all()
        worst = row_BK.std(0).max() / math.sqrt(20_000)
        assert ((row_BK[:, :steps].mean(0) - 1.0).abs() <= 5.0 * worst).all()


def test_as_many_steps_as_there_are_is_exact(images):
    model = tiny()
    exact = score(model, images[:20], None, draw("raster"), "raster")
    assert score(model, images[:20], None, draw("raster"), "raster", estimator=Estimator(8)) == exact
    assert exact.kind == exact.head_kind == "exact" and exact.estimator == "exact"


@pytest.mark.parametrize("plan", ["raster", "random"])
def test_a_one_pass_network_scores_the_same_steps(images, plan):
    few = Estimator(3)
    one, many = (score(tiny(n), images[:30], None, draw(plan), plan, estimator=few) for n in (OnePass, StepByStep))
    torch.testing.assert_close(torch.tensor(one.nats_of_image), torch.tensor(many.nats_of_image), rtol=1e-4, atol=1e-4)
    assert (one.forward_rows_per_image, many.forward_rows_per_image) == (1, 3)
    assert one.kind == "estimate" and one.head_kind == "exact" and one.estimator == "steps:3"


@pytest.mark.parametrize("plan, estimator", [("raster", "steps:2"), ("random", "steps:4"), ("random", "steps:1")])
def test_the_interval_of_an_estimate_covers_the_truth(images, plan, estimator):
    """64 repetitions, each on 64 images of the population: 95 % intervals by Student's t."""
    model, n, repetitions = tiny(OnePass), 64, 64
    truth = score(model, images, None, draw(plan), plan).nats_per_image
    width = stats.t.ppf(0.975, n - 1)
    estimates = [
        score(model, images[n * k : n * (k + 1)], None, draw(plan), plan, k + 1, estimator=Estimator.parse(estimator))
        for k in range(repetitions)
    ]
    covered = sum(abs(e.nats_per_image - truth) <= width * e.standard_error_nats for e in estimates)
    low, high = stats.binom.ppf([0.001, 0.999], repetitions, 0.95)
    assert low <= covered <= high
    mean = torch.tensor([e.nats_per_image for e in estimates], dtype=torch.float64)
    assert abs(float(mean.mean()) - truth) < 4.0 * float(mean.std()) / math.sqrt(repetitions)
    stated = math.sqrt(sum(e.standard_error_nats**2 for e in estimates) / repetitions)
    assert stated == pytest.approx(float(mean.std()), rel=0.3)


def test_the_curve_of_an_estimate_is_that_of_the_images_that_drew_the_step(images):
    model = tiny(OnePass)
    exact = score(model, images, None, draw("raster"), "raster")
    some = score(model, images, None, draw("raster"), "raster", estimator=Estimator(2))
    for name in ("step", "position"):
        truth, found = (torch.tensor(getattr(one, f"nats_per_{name}")) for one in (exact, some))
        truth_error, error = (torch.tensor(getattr(one, f"standard_error_per_{name}")) for one in (exact, some))
        assert ((found - truth).abs() < 4.5 * error).all()
        torch.testing.assert_close(error, 2.0 * truth_error, rtol=0.15, atol=0.0)  # a quarter of the images each


def test_plans_of_equally_many_steps_draw_the_same_ones(images):
    raster, reverse = (
        conditionals(tiny(), images[:40], None, draw(plan), estimator=Estimator(2)) for plan in ("raster", "reverse")
    )
    assert raster.weight_NL is not None and reverse.weight_NL is not None
    assert torch.equal(raster.weight_NL, reverse.weight_NL.flip(1))  # token l is step l of one, step 7 - l of the other


def test_all_steps_need_no_draw():
    assert EVERY_STEP.weights(torch.tensor([5]), stream(0, "steps", 1)) is None
    assert Estimator(5).weights(torch.tensor([5, 4]), stream(0, "steps", 2)) is None


class Latent(Tokenizer):
    shape, token, dimensions = (2, 3), Vectors(4), 0


def test_latents_report_nats_per_latent_dimension_and_no_bits():
    model = tiny()
    model.tokenizer = Latent()
    step_NL, nats_NL = torch.arange(6).repeat(3, 1), torch.arange(18.0).reshape(3, 6)
    found: Likelihood = summarise(model.tokenizer, "raster", Conditionals(step_NL, nats_NL, "ode", 20, 18))
    assert found.bits_per_dim is None and found.standard_error_bits_per_dim is None
    assert found.nats_per_latent_dimension == pytest.approx(float(nats_NL.sum()) / 3 / 24)
    assert found.nats_per_step == pytest.approx(tuple(nats_NL.mean(0).tolist()))
    assert found.standard_error_per_position == pytest.approx(tuple((nats_NL.std(0) / math.sqrt(3)).tolist()))

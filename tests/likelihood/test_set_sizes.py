"""Measured set costs against the likelihood of the plans that they speak of."""

from __future__ import annotations

import pytest
import torch

from mar import build, config
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead
from mar.likelihood.chain import score, token_log_prob
from mar.likelihood.set_sizes import measure_set_costs
from mar.model.model import Model
from orderings import GIVEN, Grid, Plan, PlanSpec, parse_ordering
from orderings.optimal import cost_of
from tests.helpers import OnePass

N = 5
TINY = [
    "network.encoder_width=16", "network.encoder_depth=1", "network.encoder_heads=2", "network.decoder_width=16",
    "network.decoder_depth=1", "network.decoder_heads=2",
]  # fmt: skip
RECIPE = config.read("digits", TINY)


@pytest.fixture(scope="module")
def examples() -> tuple[torch.Tensor, torch.Tensor]:
    x, label = build.data(RECIPE).validation.batch(torch.arange(N))
    assert label is not None
    return x, label


@pytest.fixture(scope="module", params=["step by step", "one pass"])
def model(request) -> Model:
    built = build.assemble(RECIPE).model.eval()
    torch.manual_seed(0)
    for parameter in built.parameters():  # far from uniform predictions, so that what is known matters
        parameter.data += 0.3 * torch.randn_like(parameter)
    if request.param == "step by step":
        return built
    network = OnePass((8, 8), OnePass.Options())
    return Model(built.tokenizer, network, CategoricalHead(8, Categories(17), CategoricalHead.Options())).eval()


@pytest.mark.parametrize("text", ["spiral", "segments:8"])
@pytest.mark.parametrize("sizes", [(64,), (1,) * 64, (1, 5, 20, 38)])
def test_triangular_costs_add_up_to_the_likelihood_of_every_schedule(model, examples, text, sizes):
    costs = measure_set_costs(model, *examples, parse_ordering(text), seed=3)
    plan = f"{text}/sizes:{','.join(map(str, sizes))}"
    nll = score(
        model,
        *examples,
        lambda noise: Plan.sample(*PlanSpec.parse(plan), Grid((8, 8)), len(noise), noise),
        plan,
        seed=3,
    )
    assert not costs.uniform and costs.ordering == text and costs.n_images == N
    assert cost_of(costs.matrix(), sizes) == pytest.approx(nll.nats_per_image, rel=1e-5)


def test_under_random_orders_costs_are_summed_from_differences_of_the_same_tokens(model, examples):
    costs = measure_set_costs(model, *examples, parse_ordering("random"), seed=1, orders=2)
    assert costs.uniform and len(costs.nats) == 64
    token = model.tokenizer.encode(examples[0])
    cost_OBS = torch.zeros(2, N, 64, dtype=torch.float64)
    for draw in range(2):
        noise = stream(1, "nll", N).at(draw=draw)
        rank_BL = parse_ordering("random").ranks(Grid((8, 8)), N, noise.at("order"))
        before_BL = torch.zeros(N, 64, dtype=torch.float64)
        for known in range(64):
            plan = Plan(rank_BL, torch.where(rank_BL < known, GIVEN, 0))
            nats_BL = -token_log_prob(model, token, plan, examples[1], noise).nats_BL.double()
            unknown_BL = rank_BL >= known
            cost_OBS[draw, :, known] = ((nats_BL - before_BL) * unknown_BL).sum(1) / (64 - known)
            before_BL = nats_BL
    cost_BS = cost_OBS.cumsum(2).mean(0)
    assert costs.nats == pytest.approx(cost_BS.mean(0).tolist(), rel=1e-4)
    assert costs.standard_error_nats == pytest.approx((cost_BS.std(0) / N**0.5).tolist(), rel=1e-2)


def test_under_random_orders_costs_agree_with_the_likelihood_within_their_noise(model, examples):
    """Both are unbiased; that of the scored sets is the noisier one."""
    images, labels = (x.repeat(40, *[1] * (x.ndim - 1)) for x in examples)
    costs = measure_set_costs(model, images, labels, parse_ordering("random"), budget=2**28)
    plan = PlanSpec.parse("random/sizes:1,5,20,38")
    nll = score(model, images, labels, lambda noise: Plan.sample(*plan, Grid((8, 8)), len(noise), noise), "", seed=5)
    difference = cost_of(costs.matrix(), (1, 5, 20, 38)) - nll.nats_per_image
    assert abs(difference) < 5.0 * nll.standard_error_nats


def test_chunks_of_any_size_give_the_same_costs(model, examples):
    seen = []
    whole = measure_set_costs(model, *examples, parse_ordering("raster"))
    small = measure_set_costs(
        model, *examples, parse_ordering("raster"), budget=1, progress=lambda done, rows: seen.append((done, rows))
    )
    assert seen[-1] == (N * 64, N * 64) and len(seen) == N * 64
    assert cost_of(whole.matrix(), [64]) == pytest.approx(cost_of(small.matrix(), [64]), rel=1e-5)
    assert whole.nats[30] == pytest.approx(small.nats[30], rel=1e-4, abs=1e-5)


def test_costs_of_vectors_are_of_the_dequantised_tokens(examples):
    recipe = config.read("digits", [*TINY, "tokenizer=patches", "head=gaussian-mixture"])
    model = build.assemble(recipe).model.eval()
    costs = measure_set_costs(model, *examples, parse_ordering("raster"))
    plan = PlanSpec.parse("raster/sizes:1,3")
    nll = score(model, *examples, lambda noise: Plan.sample(*plan, Grid((2, 2)), len(noise), noise), "raster/sizes:1,3")
    tokens = nll.nats_per_image + model.tokenizer.log_jacobian
    assert cost_of(costs.matrix(), (1, 3)) == pytest.approx(tokens, rel=1e-4)


def test_one_image_is_refused(model, examples):
    with pytest.raises(UserError, match="at least 2 images"):
        measure_set_costs(model, examples[0][:1], examples[1][:1], parse_ordering("raster"))

"""Each mask-ratio distribution estimates what it claims, against the exact NLL of the same untrained model."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mar import build, config
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.heads.categorical import CategoricalHead
from mar.likelihood.chain import token_log_prob
from mar.model.model import Model
from mar.networks.masked_transformer import MaskedTransformer
from mar.tokenizers import TOKENIZERS
from mar.training.objectives import AnyOrder, Losses, MarMasking, NextSet, Objective
from orderings import Grid, Plan, PlanSpec
from tests import synthetic

L = 4
ISING = f"{synthetic.__file__}:Synthetic"


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    recipe = config.parse({"data": {"kind": ISING, "rows": 2, "cols": 2}, "tokenizer": {"kind": "pixels"}})
    data = build.data(recipe)
    tokenizer = TOKENIZERS["pixels"](
        data.spec, TOKENIZERS.options(recipe.tokenizer.kind, recipe.tokenizer.model_extra or {})
    )
    small = {"encoder_width": 8, "encoder_depth": 1, "encoder_heads": 1, "decoder_width": 8, "decoder_depth": 1}
    network = MaskedTransformer((2, 2), MaskedTransformer.Options(decoder_heads=1, buffer=1, **small))
    built = Model(tokenizer, network, CategoricalHead(8, tokenizer.token, CategoricalHead.Options())).eval()
    with torch.no_grad():
        for p in built.parameters():
            p.add_(torch.randn_like(p))  # conditionals that differ clearly
    return built


@pytest.fixture(scope="module")
def token() -> torch.Tensor:
    return torch.tensor([[1, 0, 1, 1]])


def exact_nll(model: Model, token: torch.Tensor, step_BL: torch.Tensor) -> torch.Tensor:
    """(B,) nats of one image along each plan."""
    n = len(step_BL)
    rows, none = token.expand(n, -1), torch.full((n,), -1)
    plan = Plan(step_BL, step_BL)
    return -token_log_prob(model, rows, plan, none, stream(0, "x", n)).nats_BL.double().sum(1)


def estimates(model: Model, token: torch.Tensor, mask_ratio: Objective, plan: Plan) -> torch.Tensor:
    """(B,) nats of one image, one estimate per row."""
    n = len(plan.step_BL)
    task = mask_ratio.task(plan, torch.arange(n), stream(3, "iteration", 1), one_pass=False)
    none, keep = torch.full((n,), -1), torch.zeros(n, dtype=torch.bool)
    with torch.no_grad():
        loss_B = Losses(model, AnyOrder())(token.expand(n, -1), none, keep, task, stream(0, "head", n))
    return loss_B.double() / task.denominator * n * L


@pytest.mark.parametrize("targets", ["all", "next"])
def test_uniform_with_random_orders_estimates_the_mean_nll_over_orders(model, token, targets):
    orders = torch.tensor(list(itertools.permutations(range(L))))
    truth = float(exact_nll(model, token, orders).mean())
    plan = Plan.sample(*PlanSpec.parse("random"), Grid((2, 2)), 8000, stream(1, "order", 8000))
    rows = estimates(model, token, AnyOrder(targets=targets), plan)
    error = float(rows.std() / math.sqrt(len(rows)))
    assert abs(float(rows.mean()) - truth) < 4 * error
    assert float(exact_nll(model, token, orders).std()) > 4 * error, "orders must differ for this to test anything"


@pytest.mark.parametrize("text", ["raster/singles", "spiral/equal:2", "column/sizes:1,3", "raster/equal:4"])
def test_plan_estimates_the_nll_of_that_plan(model, token, text):
    plan = Plan.sample(*PlanSpec.parse(text), Grid((2, 2)), 600, stream(1, "order", 600))
    truth = float(exact_nll(model, token, plan.step_BL[:1])[0])
    rows = estimates(model, token, NextSet(), plan)
    error = max(float(rows.std() / math.sqrt(len(rows))), 1e-6)
    assert abs(float(rows.mean()) - truth) < 4 * error


def test_one_pass_networks_score_every_step_at_once():
    plan = Plan.sample(*PlanSpec.parse("raster/equal:2"), Grid((2, 2)), 3, stream(1, "order", 3))
    task = NextSet().task(plan, torch.arange(3), stream(3, "iteration", 1), one_pass=True)
    assert task.target_BL.all() and (task.weight_B == 1).all() and task.denominator == 12


def test_a_fixed_order_with_all_targets_is_a_suffix_loss_and_no_nll(model, token):
    plan = Plan.sample(*PlanSpec.parse("raster"), Grid((2, 2)), 2000, stream(1, "order", 2000))
    truth = float(exact_nll(model, token, plan.step_BL[:1])[0])
    rows = estimates(model, token, AnyOrder(), plan)
    assert abs(float(rows.mean()) - truth) > 4 * float(rows.std() / math.sqrt(len(rows)))


def test_truncated_normal_masks_as_published():
    n, grid = 4000, Grid((16, 16))
    plan = Plan.sample(*PlanSpec.parse("random"), grid, n, stream(1, "order", n))
    task = MarMasking(per_batch=False).task(plan, torch.arange(n), stream(3, "iteration", 1), one_pass=False)
    share = task.target_BL.float().mean(1)
    assert float(share.min()) >= 0.7 and float(share.max()) == 1.0
    # mean of a normal of location 1 and scale .25 cut to [.7, 1]: mu - sigma (phi(b) - phi(a)) / (Phi(b) - Phi(a))
    a, b, density = -1.2, 0.0, lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    cdf = lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2)))  # noqa: E731
    expected = 1.0 - 0.25 * (density(b) - density(a)) / (cdf(b) - cdf(a))
    assert abs(float(share.mean()) - expected) < 0.005  # the ceiling adds at most 1 / 256
    assert task.denominator == float(task.target_BL.sum())


def test_truncated_normal_draws_once_for_the_whole_batch_as_published():
    plan = Plan.sample(*PlanSpec.parse("random"), Grid((8, 8)), 32, stream(1, "order", 32))
    counts = set()
    for iteration in range(20):
        task = MarMasking().task(plan, torch.arange(32), stream(3, "i", torch.tensor([iteration])), False)
        counts.add(int(task.target_BL.sum(1)[0]))
        assert len(task.target_BL.sum(1).unique()) == 1
    assert len(counts) > 5


def test_known_counts_are_spread_evenly_over_a_batch():
    plan = Plan.sample(*PlanSpec.parse("random"), Grid((8, 8)), 64, stream(1, "order", 64))
    task = AnyOrder().task(plan, torch.arange(64), stream(3, "iteration", 1), one_pass=False)
    known = (task.step_BL == -1).sum(1)
    assert len(known.unique()) >= 48  # 64 independent draws would hit about 41 of the 64 counts


def test_mar_draws_a_rate_for_every_so_many_rows_as_each_process_of_its_code_does():
    n = 4096
    plan = Plan.sample(*PlanSpec.parse("random"), Grid((16, 16)), n, stream(1, "order", n))
    task = MarMasking(per_batch=32).task(plan, torch.arange(n), stream(3, "iteration", 1), one_pass=False)
    masked = task.target_BL.sum(1).reshape(-1, 32)
    assert (masked == masked[:, :1]).all() and len(masked[:, 0].unique()) > 1
    later = MarMasking(per_batch=32).task(
        plan.rows(slice(64, 96)), torch.arange(64, 96), stream(3, "iteration", 1), False
    )
    assert torch.equal(later.target_BL, task.target_BL[64:96])  # whatever else the process holds
    with pytest.raises(UserError, match="a number of rows"):
        MarMasking(per_batch=0)


@pytest.mark.parametrize("mask_ratio", [AnyOrder(), MarMasking(per_batch=False)])
def test_one_pass_networks_see_known_tokens_at_the_steps_that_they_are_scored_at(mask_ratio):
    given_BL = (torch.arange(16) < 2).expand(50, -1)
    plan = Plan.sample(*PlanSpec.parse("random/equal:7"), Grid((4, 4)), 50, stream(1, "order", 50), given_BL)
    task = mask_ratio.task(plan, torch.arange(50), stream(3, "iteration", 1), one_pass=True)
    again = mask_ratio.task(plan, torch.arange(50), stream(3, "iteration", 1), one_pass=False)
    assert torch.equal(task.target_BL, again.target_BL)
    known_BL = ~task.target_BL
    assert torch.equal(task.step_BL[known_BL], plan.step_BL[known_BL])
    first_target_B = torch.where(task.target_BL, task.step_BL, 2**30).amin(1)
    last_known_B = torch.where(known_BL, task.step_BL, -1).amax(1)
    assert bool((last_known_B < first_target_B).all())

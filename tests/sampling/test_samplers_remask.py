"""Remasking: given tokens stay, the least sure are redrawn, and one at a time at random is Gibbs sampling.

B batch · L tokens · M gathered tokens
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead, CategoricalOptions
from mar.model.model import Model
from mar.networks.base import Network
from mar.sampling.guidance import Guidance, Temperature
from mar.sampling.many import Settings
from mar.sampling.remask import Posterior, Remask, generate_posterior, generate_remasked, parse_remask
from mar.sampling.samplers import generate
from mar.verification.models import BareTokens
from mar.verification.verdict import ALPHA, p_value
from orderings import GIVEN, ORDERINGS, Grid, InvalidRequest, Plan, PlanSpec

N_TOKENS = 3
EVERY = torch.tensor(list(itertools.product([0, 1], repeat=N_TOKENS)))  # (8, L)
JOINT = torch.tensor([0.30, 0.02, 0.03, 0.10, 0.05, 0.15, 0.05, 0.30], dtype=torch.float64)


class Exact(Network):
    """The conditionals of ``JOINT``: z is the log-probability of 0 and of 1, given what is known."""

    token_width, condition_width, context_width = 1, 1, 2
    order_invariant = True

    def forward(self, token_BLD, step_BL, condition_BC, target_BL):
        now_B1 = torch.where(target_BL, step_BL, 2**30).amin(1, keepdim=True)
        known_BL = step_BL < now_B1
        agrees_BN = ((token_BLD[:, None, :, 0] == EVERY) | ~known_BL[:, None]).all(2)
        row_M, place_M = target_BL.nonzero(as_tuple=True)
        weight_MN = agrees_BN[row_M] * JOINT
        one_M = (weight_MN * EVERY[:, place_M].T).sum(1) / weight_MN.sum(1)
        return torch.stack([(1 - one_M).log(), one_M.log()], dim=1).float()


@pytest.fixture
def model() -> Model:
    tokenizer, network = BareTokens((N_TOKENS,), Categories(2)), Exact()
    model = Model(tokenizer, network, CategoricalHead(2, Categories(2), CategoricalOptions())).eval()
    with torch.no_grad():
        model.head.logits.weight.copy_(torch.eye(2))
        model.head.logits.bias.zero_()
    model.embedding = nn.Embedding.from_pretrained(torch.tensor([[0.0], [1.0]]))  # type: ignore[assignment]
    return model


def at_once(n: int) -> Plan:
    zeros_BL = torch.zeros(n, N_TOKENS, dtype=torch.int64)
    return Plan(torch.arange(N_TOKENS).expand(n, -1), zeros_BL)


def agreement(token_NL: torch.Tensor) -> float:
    count = torch.bincount(token_NL @ torch.tensor([4, 2, 1]), minlength=8)
    return p_value(count.numpy(), JOINT.numpy())


def draw(model: Model, plan: Plan, remask: Remask | Posterior, **options) -> torch.Tensor:
    n = len(plan.step_BL)
    given, guidance = options.pop("given", None), options.pop("guidance", Guidance())
    nobody, noise = torch.full((n,), -1), stream(0, "sample", n)
    take = generate_posterior if isinstance(remask, Posterior) else generate_remasked
    return take(model, plan, nobody, noise, guidance, 1.0, given, remask=remask, **options)


def test_gibbs_rounds_mend_what_was_drawn_at_once(model):
    n, noise = 2000, stream(0, "sample", 2000)
    alone = generate(model, at_once(n), torch.full((n,), -1), noise)
    assert agreement(alone) < 1e-20  # the product of the marginals is not the joint
    assert agreement(draw(model, at_once(n), Remask("random", rounds=40, share=0.01))) > ALPHA


def test_one_token_at_a_time_at_random_leaves_the_joint_as_it_is(model):
    n = 2000
    plan = Plan.sample(*PlanSpec.parse("raster"), Grid((N_TOKENS,)), n, stream(0, "order", n))
    assert agreement(draw(model, plan, Remask("random", rounds=1, share=0.01))) > ALPHA


def test_the_least_confident_tokens_are_redrawn_and_no_other(model):
    n = 64
    noise, nobody = stream(0, "sample", n), torch.full((n,), -1)
    first = generate(model, at_once(n), nobody, noise)
    marginal_L2 = torch.stack([(JOINT[:, None] * (value == EVERY)).sum(0) for value in (0, 1)], dim=1)
    confidence_BL = marginal_L2[torch.arange(N_TOKENS), first]
    redrawn = []
    draw(model, at_once(n), Remask("least-confident", 1, 0.3), on_step=lambda step, token, at_BL: redrawn.append(at_BL))
    assert torch.equal(redrawn[1].long().argmax(1), confidence_BL.argmin(1)) and (redrawn[1].sum(1) == 1).all()


@pytest.mark.parametrize("text", ["cap:1", "rescale:0.7", "confidence"])
def test_masking_inside_a_generation_keeps_the_plans_number_of_known_tokens(model, text, monkeypatch):
    """Each step is drawn given what the last one left; some of the older tokens are masked, none of its own."""
    n, known, drawn = 500, [], []
    monkeypatch.setattr(
        model.network,
        "observe",
        lambda state, token_BLD, index_BL: (
            known.append(index_BL) or Exact.observe(model.network, state, token_BLD, index_BL)
        ),
    )
    plan = Plan.sample(*PlanSpec.parse("random"), Grid((N_TOKENS,)), n, stream(0, "order", n))
    token = draw(model, plan, parse_remask(text), on_step=lambda step, token, at_BL: drawn.append(at_BL))
    assert [known_BL.sum(1).unique().tolist() for known_BL in known] == [[0], [1], [2]]
    for k in range(2):
        assert (drawn[k] <= known[k + 1]).all() and (known[k + 1] <= known[k] | drawn[k]).all()
    assert (known[-1] | drawn[-1]).all() and sum(at_BL.sum() for at_BL in drawn) > n * N_TOKENS
    assert set(map(tuple, token.tolist())) == set(map(tuple, EVERY.tolist()))


def test_schedules_inside_a_generation_are_those_of_the_plan(model, monkeypatch):
    steps, after = [], []
    monkeypatch.setattr(Temperature, "at", lambda self, step, n_steps: steps.append((step, n_steps)) or 1.0)
    monkeypatch.setattr(Guidance, "at", lambda self, place: after.append(place.after.unique().tolist()) or 1.0)
    plan = Plan.sample(*PlanSpec.parse("random"), Grid((N_TOKENS,)), 64, stream(0, "order", 64))
    draw(model, plan, Posterior("rescale"), guidance=Guidance(2.0))
    assert steps == [(0, 3), (1, 3), (2, 3)] and after == [[1], [2], [3]]  # though two are drawn and one is masked
    with pytest.raises(Unsupported, match="linear-rank needs an order that stays"):
        draw(model, plan, Posterior("cap"), guidance=Guidance(2.0, "linear-rank"))


def test_the_expected_number_is_that_of_remdm():
    known_B, left_B = torch.tensor([10.0, 40.0, 60.0]), torch.tensor([50.0, 20.0, 0.0])
    for text, number in (("cap:0.6", [6, 20, 0]), ("rescale:0.1", [1, 2, 0]), ("confidence", [1, 0.5, 0])):
        assert parse_remask(text).number(known_B, left_B).tolist() == pytest.approx(number)


@pytest.mark.parametrize("rule", ["random", "least-confident"])
def test_given_tokens_stay_and_rows_do_not_depend_on_their_batch(model, rule):
    n = 32
    plan, given = at_once(n), EVERY.repeat(4, 1)
    step_BL = plan.step_BL.clone()
    step_BL[:, 1] = GIVEN
    plan = Plan(torch.where(step_BL == GIVEN, GIVEN, plan.rank_BL // 2), step_BL)
    token = draw(model, plan, Remask(rule, 4, 0.5), given=given)
    assert torch.equal(token[:, 1], given[:, 1]) and not torch.equal(token, given)
    alone = generate_remasked(
        model, plan.rows(slice(5, 6)), torch.tensor([-1]), stream(0, "sample", n).rows(slice(5, 6)), Guidance(), 1.0,
        given[5:6], remask=Remask(rule, 4, 0.5),
    )  # fmt: skip
    assert torch.equal(alone, token[5:6])
    inside = Posterior("confidence" if rule == "least-confident" else "cap")
    token = draw(model, plan, inside, given=given)
    assert torch.equal(token[:, 1], given[:, 1])
    alone = generate_posterior(
        model, plan.rows(slice(5, 6)), torch.tensor([-1]), stream(0, "sample", n).rows(slice(5, 6)), Guidance(), 1.0,
        given[5:6], remask=inside,
    )  # fmt: skip
    assert torch.equal(alone, token[5:6])


def test_networks_that_see_an_order_are_refused(model):
    model.network.order_invariant = False  # type: ignore[misc]
    with pytest.raises(Unsupported, match="use network=masked-transformer, halton-maskgit or nade"):
        draw(model, at_once(1), Remask())


def test_it_is_no_plan_and_has_no_likelihood():
    with pytest.raises(InvalidRequest, match="no tractable likelihood; mar sample --remask"):
        ORDERINGS["remask"]


def test_it_is_written_short():
    assert parse_remask("random") == Remask() and parse_remask("least-confident:3") == Remask("least-confident", 3)
    assert (
        parse_remask("random:16:0.1") == Remask("random", 16, 0.1)
        and str(parse_remask("random:16:0.1")) == "random:16:0.1"
    )
    for text in (
        "gibbs",
        "random:x",
        "random:0",
        "random:1:0",
        "random:1:2",
        "random:1:0.1:9",
        "cap",
        "cap:0",
        "rescale:2",
        "cap:nan",
        "confidence:1",
    ):
        with pytest.raises(UserError, match="remasking is written"):
            parse_remask(text)
    with pytest.raises(UserError, match="leave out adaptive"):
        Settings(adaptive="confidence", remask=Remask())

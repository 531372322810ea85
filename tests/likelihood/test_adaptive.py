"""Orders that the model finds: a normalised likelihood, along the very order in which the sampler generates."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mar.core.errors import Unsupported
from mar.core.noise import stream
from mar.core.tokens import Categories, Vectors
from mar.heads.categorical import CategoricalHead
from mar.heads.gaussian_mixture import GaussianMixtureHead
from mar.likelihood.chain import adaptive_log_prob, token_log_prob
from mar.model.model import Model
from mar.model.plans import sizes_plan
from mar.networks import NETWORKS
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from mar.verification.cases import all_images
from mar.verification.models import small_model
from orderings import GIVEN, Grid, InvalidRequest, Plan, PlanSpec, parse_adaptive, parse_partition
from tests.helpers import Cached, OnePass, StepByStep

RULES = ("lowest-entropy", "highest-entropy")
NETWORKS = {**{kind: NETWORKS[kind] for kind in NETWORKS}, "one-pass": OnePass, "cached": Cached}
NETWORKS["step-by-step"] = StepByStep
ATTENTIVE = ("masked-transformer", "causal-transformer", "one-pass", "cached", "step-by-step")  # to tokens' values


def model_of(network: str, shape: tuple[int, ...] = (2, 3), vocabulary: int = 2) -> Model:
    torch.manual_seed(0)
    model = small_model(NETWORKS[network], CategoricalHead, shape, Categories(vocabulary))
    with torch.no_grad():  # so that orders depend on the tokens' values more than on their positions
        model.embedding.embed.weight.mul_(8.0)
        for name, parameter in model.network.named_parameters():
            parameter.mul_(0.1 if "position" in name else 1.0)
    return model


def served(network: str, *size) -> Model:
    """The model, where the network serves every order."""
    model = model_of(network, *size)
    try:
        model.network.check(torch.arange(len(Grid(model.tokenizer.shape))).flip(0)[None])
    except Unsupported:
        pytest.skip("refused, as test_what_has_no_such_likelihood_is_refused_with_the_reason shows")
    return model


def follow(model: Model, token: torch.Tensor, text: str, given_BL: torch.Tensor | None = None, **options):
    rule, partition = PlanSpec.parse(text, adaptive=True)
    n, length = token.shape
    plan = sizes_plan(partition, length, n)
    if given_BL is not None:
        rank_BL = torch.where(given_BL, GIVEN, (~given_BL).cumsum(1) - 1)
        plan = Plan(rank_BL, partition.steps(rank_BL, Grid(model.tokenizer.shape)))
    noise = stream(0, "nll", n)
    result, plan = adaptive_log_prob(model, token, plan, rule, torch.zeros(n).long(), noise, **options)
    return SimpleNamespace(result=result, plan=plan)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "text",
    [
        *RULES,
        "largest-margin",
        "entropy-bound:0.9",
        *(f"{rule}/{cut}" for rule in RULES for cut in ("equal:2", "sizes:(1,3,2)")),
    ],
)
def test_probabilities_of_all_images_sum_to_one(network, text):
    if network not in ATTENTIVE and text not in ("lowest-entropy", "highest-entropy/equal:2"):
        pytest.skip("these networks under two of the plans")
    found = follow(served(network), all_images(2, 6), text)
    assert found.result.nats_BL.sum(1).double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    if network in ATTENTIVE and "sizes" not in text and "bound" not in text:  # these may leave little to choose
        assert len(found.plan.step_BL.unique(dim=0)) > 1, "the order should depend on the image"


def test_an_entropy_bound_sets_the_number_of_steps():
    """From one token a step, which is lowest-entropy, to all at once."""
    model, images = model_of("masked-transformer"), all_images(2, 6)
    steps = [follow(model, images, f"entropy-bound:{nats}").plan.n_steps_B for nats in (0, 0.9, 100)]
    assert (steps[0] == 6).all() and (steps[2] == 1).all() and 1 < steps[1].double().mean() < 6
    singles = follow(model, images, "lowest-entropy")
    bound = follow(model, images, "entropy-bound:0")
    assert torch.equal(bound.plan.step_BL, singles.plan.step_BL)
    assert torch.allclose(bound.result.nats_BL, singles.result.nats_BL, atol=1e-6)
    with pytest.raises(Unsupported, match="chooses how many tokens a step takes"):
        follow(model, images, "entropy-bound/equal:2")


def test_more_categories_sum_to_one_too():
    found = follow(model_of("masked-transformer", (4,), 4), all_images(4, 4), "lowest-entropy/equal:3")
    assert found.result.nats_BL.sum(1).double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("text", ["lowest-entropy", "highest-entropy/cosine:3"])
def test_the_exact_chain_along_the_realised_orders_gives_the_same_nats(network, text):
    model, token = served(network), all_images(2, 6)
    found = follow(model, token, text)
    chain = token_log_prob(model, token, found.plan, torch.zeros(64).long(), stream(0, "nll", 64))
    torch.testing.assert_close(found.result.nats_BL, chain.nats_BL, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.plan.rank_BL.sort(1).values, torch.arange(6).expand(64, 6))
    assert (found.plan.sizes() == sizes_plan(PlanSpec.parse(text, adaptive=True)[1], 6, 1).sizes()).all()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("text", ["lowest-entropy", "lowest-entropy/equal:4", "highest-entropy/cosine:5"])
def test_scoring_a_sample_reproduces_the_order_in_which_it_was_generated(network, text):
    model = served(network, (3, 3), 5)
    rule, _, _ = text.partition("/")
    plan, label_B, noise = (
        sizes_plan(PlanSpec.parse(text, adaptive=True)[1], 9, 20),
        torch.zeros(20).long(),
        stream(3, "sample", 20),
    )
    step_BL = torch.full((20, 9), -5)

    def record(step: int, token: torch.Tensor, target_BL: torch.Tensor) -> None:
        step_BL[target_BL] = step

    token = generate(model, plan, label_B, noise, Guidance(), 1.0, None, record, rule=rule)
    found = follow(model, token, text)
    assert torch.equal(found.plan.step_BL, step_BL)
    assert "/" in text or network not in ATTENTIVE or len(step_BL.unique(dim=0)) > 1


@pytest.mark.parametrize("network", NETWORKS)
def test_an_order_does_not_depend_on_the_batch_or_the_memory_budget(network):
    model, token, seen = served(network), all_images(2, 6)[::7], []
    whole = follow(model, token, "lowest-entropy/equal:2")
    alone = follow(model, token, "lowest-entropy/equal:2", budget=1, on_rows=seen.append)
    assert torch.equal(whole.plan.step_BL, alone.plan.step_BL)
    torch.testing.assert_close(whole.result.nats_BL, alone.result.nats_BL, rtol=1e-4, atol=1e-5)
    assert seen == [1] * 30 and alone.result.forward_rows == whole.result.forward_rows == 30


@pytest.mark.parametrize("rule", RULES)
def test_ties_go_to_the_first_token(rule):
    model = model_of("masked-transformer")
    with torch.no_grad():
        model.head.logits.weight.zero_()  # every token has the same distribution, whatever is known
    found = follow(model, all_images(2, 6), f"{rule}/equal:4")
    assert (found.plan.step_BL == torch.tensor([0, 0, 0, 0, 1, 1])).all()
    assert (found.plan.rank_BL == torch.arange(6)).all()


def test_the_first_token_is_the_one_whose_marginal_has_the_lowest_entropy():
    model = model_of("masked-transformer")
    with torch.no_grad():
        everything = torch.ones(1, 6, dtype=torch.bool)
        unknown = torch.zeros(1, 6).long()
        z_MD = model.context(unknown, unknown, model.condition(torch.zeros(1).long()), everything)
        p_MV = model.head.logits(z_MD).softmax(-1)
    surest = int((-(p_MV * p_MV.log()).sum(1)).argmin())
    assert (follow(model, all_images(2, 6), "lowest-entropy").plan.rank_BL[:, surest] == 0).all()


def test_given_tokens_are_conditioned_on_and_never_scored():
    model, token = model_of("causal-transformer"), all_images(2, 6)[20:23]
    given_BL = torch.tensor([[1, 1, 0, 0, 0, 0], [0] * 6, [1] * 6]).bool()
    found = follow(model, token, "lowest-entropy/equal:3", given_BL)
    assert torch.equal(found.plan.step_BL == GIVEN, given_BL) and torch.equal(found.result.nats_BL == 0, given_BL)
    assert found.plan.n_steps_B.tolist() == [2, 2, 0]
    chain = token_log_prob(model, token, found.plan, torch.zeros(3).long(), stream(0, "nll", 3))
    torch.testing.assert_close(found.result.nats_BL, chain.nats_BL, rtol=1e-4, atol=1e-5)


def test_what_has_no_such_likelihood_is_refused_with_the_reason():
    token, none = all_images(2, 6), torch.zeros(64).long()
    for ask in (
        lambda: PlanSpec.parse("confidence/cosine:3", adaptive=True),
        lambda: PlanSpec.parse("confidence:2", adaptive=True),
    ):
        with pytest.raises(InvalidRequest, match="looks at the values just sampled, so it has no tractable likelihood"):
            ask()
    singles = sizes_plan(parse_partition("singles"), 6, 64)
    with pytest.raises(Unsupported, match="looks at the values just sampled"):
        confidence = parse_adaptive("confidence")
        adaptive_log_prob(model_of("one-pass"), token, singles, confidence, none, stream(0, "nll", 64))
    with pytest.raises(Unsupported, match="cuts by where the tokens lie"):
        sizes_plan(parse_partition("blocks:2"), 6, 1)
    with pytest.raises(Unsupported, match="raster"):
        follow(model_of("row-lstm"), all_images(2, 6), "lowest-entropy")
    continuous = small_model(OnePass, GaussianMixtureHead, (2, 3), Vectors(1))
    with pytest.raises(Unsupported, match="no tractable entropy"):
        rule = parse_adaptive("lowest-entropy")
        adaptive_log_prob(continuous, torch.zeros(64, 6, 1), singles, rule, none, stream(0, "nll", 64))

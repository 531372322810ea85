"""A learned order: the bound, its gradient and its sampler against the enumeration of every order and every image.

B batch · L tokens · P orders · V vocabulary
"""

from __future__ import annotations

import itertools
import math
from typing import cast

import pytest
import torch

from mar.core.errors import Unsupported
from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead
from mar.likelihood.chain import score
from mar.likelihood.summary import Likelihood
from mar.model.model import Model
from mar.model.plans import sizes_plan
from mar.model.policy import OrderPolicy, draw_order, order_log_prob
from mar.networks.base import Network, NetworkOptions
from mar.networks.causal_transformer import CausalTransformer
from mar.networks.masked_transformer import MaskedTransformer
from mar.order_search import learned
from mar.order_search.learned import find_learned, joint_log_prob, learned_log_prob, policy_of
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from mar.training.objectives import AnyOrder, LearnedOrder, Losses
from mar.verification.models import BareTokens
from orderings import Plan, PlanSpec, parse_partition
from orderings.grid import Grid
from tests.helpers import Cached, StepByStep

L, V = 3, 2
NETWORKS: list[type[Network]] = [Cached, MaskedTransformer, CausalTransformer]


def with_policy(network: Network, n_tokens: int, vocabulary: int, scale: float) -> Model:
    """A model with a policy, all its weights moved at random."""
    token = Categories(vocabulary)
    head = CategoricalHead(network.context_width, token, CategoricalHead.Options())
    model = Model(BareTokens((n_tokens,), token), network, head)
    model.policy = OrderPolicy(n_tokens, token, network.context_width, network.token_width, network.condition_width)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn_like(p))
    return model.eval()


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.__name__)
def model(request) -> Model:
    torch.manual_seed(1)
    return with_policy(request.param((L,), request.param.Options(**request.param.test_options)), L, V, scale=0.4)


def every(n_tokens: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(X, L) every image and (P, L) every order, as ranks."""
    images = torch.tensor(list(itertools.product(range(vocabulary), repeat=n_tokens)))
    return images, torch.tensor(list(itertools.permutations(range(n_tokens))))


def none(n: int) -> torch.Tensor:
    return torch.full((n,), -1)


def enumerated(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """(X, P) log p(x, σ) and log q(σ | x), from forward passes that share nothing with the incremental ones."""
    n_tokens, vocabulary = len(Grid(model.tokenizer.shape)), V
    images, ranks = every(n_tokens, vocabulary)
    x, rank = images.repeat_interleave(len(ranks), 0), ranks.repeat(len(images), 1)
    condition = model.null_condition(len(x))
    logits = policy_of(model).order_logits(x, condition)
    log_p, log_q, head = torch.zeros(len(x)), torch.zeros(len(x)), cast(CategoricalHead, model.head)
    for step in range(n_tokens):
        unknown, here = rank >= step, rank == step
        z = model.context(torch.where(unknown, 0, x), rank.clamp(max=step), condition, unknown)
        token = head.logits(z).log_softmax(-1)[here[unknown]].gather(1, x[here][:, None])[:, 0]
        position = policy_of(model).prior(z).reshape(len(x), n_tokens - step).log_softmax(-1)
        log_p = log_p + token + position.flatten()[here[unknown]]
        log_q = log_q + logits[here] - logits.masked_fill(~unknown, -torch.inf).logsumexp(1)
    return log_p.view(len(images), len(ranks)), log_q.view(len(images), len(ranks))


def test_the_marginal_over_orders_is_a_distribution_and_the_bound_is_below_it(model):
    log_p, log_q = (t.detach().double() for t in enumerated(model))
    marginal = log_p.logsumexp(1)
    assert float(marginal.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(log_q.exp().sum(1), torch.ones(V**L, dtype=torch.float64), atol=1e-5)
    bound = (log_q.exp() * (log_p - log_q)).sum(1)
    assert bool((bound < marginal - 1e-3).all()), "the weights are random, so the bound is loose"


def test_what_is_scored_along_an_order_is_the_joint_and_averages_to_the_bound(model):
    log_p, log_q = (t.detach() for t in enumerated(model))
    images, ranks = every(L, V)
    x, rank = images.repeat_interleave(len(ranks), 0), ranks.repeat(len(images), 1)
    joint, _ = joint_log_prob(model, x, rank, none(len(x)), stream(0, "x", len(x)), budget=5000)
    torch.testing.assert_close(joint.sum(1), log_p.flatten(), rtol=1e-4, atol=1e-5)

    n = 4000
    many = images[5].expand(n, -1)
    found, plan = learned_log_prob(model, many, none(n), stream(0, "x", n))
    row = (ranks[None] == plan.rank_BL[:, None]).all(-1).float().argmax(1)  # which order each row drew
    expected = (log_p - log_q)[5, row]
    torch.testing.assert_close(found.nats_BL.sum(1), expected, rtol=1e-4, atol=1e-5)
    share = torch.bincount(row, minlength=len(ranks)) / n
    error = (log_q[5].exp() * (1 - log_q[5].exp()) / n).sqrt()
    assert float(((share - log_q[5].exp()) / error).abs().max()) < 4.0, "orders are drawn from q"


def test_with_the_exact_posterior_every_order_scores_the_exact_likelihood():
    """Two tokens: any posterior over their two orders is a Plackett–Luce distribution."""
    torch.manual_seed(2)
    model = with_policy(StepByStep((2,), NetworkOptions()), 2, V, scale=0.7)
    log_p, _ = enumerated(model)
    images, ranks = every(2, V)

    def exact(token: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        number = (token * torch.tensor([2, 1])).sum(1)
        first_is_0 = ranks[:, 0].argmin()
        return torch.stack([log_p[number, first_is_0], log_p[number, 1 - first_is_0]], dim=1)

    policy_of(model).order_logits = exact
    for seed in range(4):  # both orders of every image are drawn
        found, _ = learned_log_prob(model, images, none(len(images)), stream(seed, "x", len(images)))
        torch.testing.assert_close(found.nats_BL.sum(1), log_p.logsumexp(1), rtol=1e-4, atol=1e-5)


def exact_gradient(model: Model, number: int) -> torch.Tensor:
    """Of −bound of one image over L, by enumeration and automatic differentiation through the probabilities."""
    model.zero_grad()
    log_p, log_q = enumerated(model)
    (-(log_q.exp() * (log_p - log_q))[number].sum() / L).backward()
    return flat_gradient(model)


def flat_gradient(model: Model) -> torch.Tensor:
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    )


def estimated_gradients(model: Model, number: int, chunks: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(chunks,) losses and (chunks, parameters) gradients, as one optimiser step computes them."""
    images, _ = every(L, V)
    objective, losses, gradients = Losses(model, LearnedOrder()), [], []
    for chunk in range(chunks):
        model.zero_grad()
        noise = stream(7, "rows", torch.arange(rows) + chunk * rows)
        plan = Plan.sample(*PlanSpec.parse("learned"), Grid((L,)), rows, noise.at("order"))
        task = AnyOrder().task(plan, torch.arange(rows), stream(7, "k", torch.tensor([chunk])), one_pass=False)
        keep = torch.zeros(rows, dtype=torch.bool)
        loss = objective(images[number].expand(rows, -1), none(rows), keep, task, noise).sum() / task.denominator
        loss.backward()
        losses.append(loss.detach())
        gradients.append(flat_gradient(model))
    return torch.stack(losses), torch.stack(gradients)


def z_scores(estimates: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    spread = estimates.std(0) / math.sqrt(len(estimates))
    return ((estimates.mean(0) - truth) / spread.clamp(min=1e-4)).abs()


def test_loss_and_gradient_of_training_are_those_of_the_bound_in_expectation(model, monkeypatch):
    number = 5
    truth = exact_gradient(model, number)
    log_p, log_q = (t.detach() for t in enumerated(model))
    bound = (log_q.exp() * (log_p - log_q))[number].sum()
    losses, gradients = estimated_gradients(model, number, chunks=150, rows=120)
    assert float(z_scores(losses, -bound / L)) < 4.0
    assert float(z_scores(gradients, truth).max()) < 4.0
    monkeypatch.setattr(learned, "_leave_one_out", lambda value_SB, log_q_SB: value_SB)
    _, without = estimated_gradients(model, number, chunks=150, rows=120)
    assert float(z_scores(without, truth).max()) > 8.0, "without the score function the gradient is another"


def test_samples_follow_the_marginal_over_orders(model):
    n = 4000
    probability = enumerated(model)[0].detach().logsumexp(1).exp()
    noise, plan = stream(0, "sample", n), Plan(*[torch.arange(L).expand(n, -1)] * 2)
    positions = []

    def keep(step: int, token: torch.Tensor, target_BL: torch.Tensor) -> None:
        assert bool((target_BL.sum(1) == 1).all())
        positions.append(target_BL.long().argmax(1))

    x = generate(model, plan, none(n), noise, Guidance(), 1.0, None, keep, learned=True)
    share = torch.bincount((x * torch.tensor([4, 2, 1])).sum(1), minlength=V**L) / n
    assert float(((share - probability) / (probability * (1 - probability) / n).sqrt()).abs().max()) < 4.0
    assert bool((torch.stack(positions).sort(0).values == torch.arange(L)[:, None]).all()), "each position once"


def test_given_tokens_are_kept_and_sets_hold_as_many_tokens_as_the_plan_says(model):
    n = 6
    given_BL = torch.zeros(n, L, dtype=torch.bool)
    given_BL[::2, 1] = True
    plan = Plan.sample(*PlanSpec.parse("learned/equal:2"), Grid((L,)), n, stream(0, "order", n), given_BL)
    sizes: list[torch.Tensor] = []
    x = generate(
        model, plan, none(n), stream(0, "sample", n), Guidance(), 1.0, torch.ones(n, L, dtype=torch.int64),
        lambda step, token, target_BL: sizes.append(target_BL.sum(1)), learned=True,
    )  # fmt: skip
    assert bool((x[::2, 1] == 1).all())
    assert torch.equal(torch.stack(sizes, 1), plan.sizes())


def test_orders_are_plackett_luce():
    logits = torch.tensor([[1.0, 0.0, -1.0, 0.5]]).expand(6000, -1)
    ranks = torch.tensor(list(itertools.permutations(range(4))))
    probability = order_log_prob(logits[: len(ranks)], ranks).sum(1).exp()
    assert float(probability.sum()) == pytest.approx(1.0, abs=1e-5)
    drawn = draw_order(logits, stream(3, "x", len(logits)))
    share = (drawn[:, None] == ranks[None]).all(-1).float().mean(0)
    assert float(((share - probability) / (probability * (1 - probability) / len(drawn)).sqrt()).abs().max()) < 4.0


def bound_of(model: Model, images: torch.Tensor, sets: str = "singles", **options) -> Likelihood:
    """The bound of images under the learned order."""
    n_tokens = math.prod(model.tokenizer.shape)

    def draw(noise) -> Plan:
        return sizes_plan(parse_partition(sets), n_tokens, len(noise))

    return score(model, images, None, draw, "learned", find=find_learned, **options)


def test_what_has_no_bound_is_refused_with_the_reason(model):
    images = torch.zeros(2, L, dtype=torch.int64)
    with pytest.raises(Unsupported, match="kind bound, not exact"):
        bound_of(model, images, kind="exact")
    with pytest.raises(Unsupported, match="one token at a time"):
        bound_of(model, images, "equal:2")
    without = with_policy(StepByStep((L,), NetworkOptions()), L, V, scale=0.0)
    without.policy = None
    with pytest.raises(Unsupported, match="ordering=learned"):
        bound_of(without, images)

"""Speculation draws what one token at a time draws, in fewer passes; faults in the ratio test are seen.

B batch · L tokens · N images · V vocabulary
"""

from __future__ import annotations

import itertools

import pytest
import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.tokens import Categories, Vectors
from mar.heads import HEADS
from mar.likelihood.chain import token_log_prob
from mar.model.model import Model
from mar.networks import NETWORKS
from mar.sampling import speculate
from mar.sampling.guidance import Guidance
from mar.sampling.many import Settings
from mar.sampling.remask import Remask
from mar.sampling.samplers import generate
from mar.sampling.speculate import Speculation, generate_speculated
from mar.verification.models import small_model
from mar.verification.verdict import ALPHA, p_value
from orderings import GIVEN, Grid, Plan, PlanSpec

V, L, N = 3, 4, 3000
EVERY = torch.tensor(list(itertools.product(range(V), repeat=L)))
PLACE = V ** torch.arange(L - 1, -1, -1)
DRAFTS = ["self:1", "self:2", "self:4", "jacobi:1", "jacobi:2", "jacobi:4"]


def categorical(network: str = "causal-transformer", head: str = "categorical", strength: float = 3.0) -> Model:
    """A model of strong dependences, so that drafts are rejected."""
    model = small_model(NETWORKS[network], HEADS[head], (2, 2), Categories(V))
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(strength)
    return model


def plan_of(order: str, n: int = N) -> Plan:
    return Plan.sample(*PlanSpec.parse(order), Grid((2, 2)), 1, stream(5, "order", 1)).rows(torch.zeros(n).long())


def probabilities(model: Model, order: str, label: int = -1) -> torch.Tensor:
    n = len(EVERY)
    nats = token_log_prob(model, EVERY, plan_of(order, n), torch.full((n,), label), stream(0, "x", n)).nats_BL
    return nats.double().sum(1).exp()


def draw(model: Model, plan: Plan, draft: str | Speculation, label: int = -1, seed: int = 0, **options) -> torch.Tensor:
    n = len(plan.step_BL)
    speculation = Speculation.parse(draft) if isinstance(draft, str) else draft
    labels, noise = torch.full((n,), label), options.pop("noise", stream(seed, "sample", n))
    return generate_speculated(model, plan, labels, noise, speculation=speculation, **options)


def agreement(token_NL: torch.Tensor, p_V: torch.Tensor) -> float:
    return p_value(torch.bincount(token_NL @ PLACE, minlength=len(EVERY)).numpy(), p_V.numpy())


@pytest.mark.parametrize("order", ["raster", "random", "subsample"])
@pytest.mark.parametrize("network", ["causal-transformer", "masked-transformer", "made", "nade", "lstm"])
def test_images_follow_the_distribution_of_one_token_at_a_time(network, order):
    model = categorical(network)
    expected_V = probabilities(model, order)
    for draft in DRAFTS:
        found = agreement(draw(model, plan_of(order), draft), expected_V)
        assert found > ALPHA, f"{draft}: p-value {found:.1e}"


@pytest.mark.parametrize("network", ["causal-transformer", "masked-transformer"])
def test_a_smaller_model_drafts(network):
    model, smaller = categorical(network, "logistic-mixture"), categorical("lstm")
    drafts = Speculation("a run", 2, smaller)
    assert agreement(draw(model, plan_of("random"), drafts), probabilities(model, "random")) > ALPHA
    same = Speculation("a run", L, model)  # a draft of the model itself is always accepted
    draw(model, plan_of("random", 100), same)
    assert torch.equal(same.passes[0], torch.ones(100).long())


def test_guidance_temperature_and_truncation_are_those_of_the_sampler(monkeypatch):
    model, plan = categorical(), plan_of("random", 6000)
    labels, options = torch.ones(6000).long(), {"guidance": Guidance(2.0), "temperature": 0.7}
    monkeypatch.setattr(model.head, "sampling", model.head.Sampling(top_k=2))
    singles = generate(model, plan, labels, stream(8, "sample", 6000), **options)
    observed_V = torch.bincount(singles @ PLACE, minlength=len(EVERY)).double() + 1e-3
    ahead = draw(model, plan, "jacobi:3", label=1, **options)
    count = torch.stack([torch.bincount(x @ PLACE, minlength=len(EVERY)) for x in (singles, ahead)])
    often = count.sum(0) >= 20
    table = torch.cat([count[:, often], count[:, ~often].sum(1, keepdim=True)], dim=1)
    assert chi2(table[:, table.sum(0) > 0]) > ALPHA
    plain = torch.bincount(draw(model, plan, "jacobi:3", label=1) @ PLACE, minlength=len(EVERY))
    assert p_value(plain.numpy(), (observed_V / observed_V.sum()).numpy()) < ALPHA
    greedy = {"temperature": 0.0}
    alone = generate(model, plan.rows(slice(0, 9)), labels[:9], stream(8, "sample", 9), **greedy)
    assert torch.equal(draw(model, plan.rows(slice(0, 9)), "self:3", label=1, **greedy), alone)


def chi2(table: torch.Tensor) -> float:
    from scipy import stats

    return float(stats.chi2_contingency(table.numpy()).pvalue)


def accept_always(race, text, p_BWX, q_BWX, start_B, end_B):
    return end_B - start_B


def residual_is_p(laws, p_MX, draft, q_MX, noise):
    return laws.draw(p_MX, noise)


def same_noise(race, purpose, row_M, place_M):
    return race.noise.tokens(row_M, place_M)


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (speculate._Race, "_accepted", accept_always),
        (speculate._Tables, "residual", residual_is_p),
        (speculate._Race, "_streams", same_noise),
    ],
)
def test_a_planted_fault_is_seen(where, name, fault, monkeypatch):
    model = categorical(strength=6.0)
    monkeypatch.setattr(where, name, fault)
    assert agreement(draw(model, plan_of("random"), "self:3"), probabilities(model, "random")) < ALPHA


@pytest.mark.parametrize("draft", ["self", "jacobi"])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_no_image_takes_more_passes_than_it_has_tokens(draft, size):
    speculation = Speculation(draft, size)
    rounds = []
    model = categorical(strength=30.0)
    draw(model, plan_of("random"), speculation, on_step=lambda number, token, new_BL: rounds.append(new_BL.long()))
    assert int(speculation.passes[0].max()) <= L and int(speculation.passes[0].min()) >= 2
    assert (sum(rounds) == 1).all(), "every token is made known once"
    assert speculation.told(L).endswith(
        f"({speculation.passes[0].min()} to {speculation.passes[0].max()}) for 4 tokens"
    )


@pytest.mark.parametrize("network", ["causal-transformer", "masked-transformer"])
@pytest.mark.parametrize("draft", ["self:2", "jacobi:2"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_image_k_does_not_depend_on_its_batch_and_given_tokens_stay(network, draft, scale):
    n, options = 24, {"guidance": Guidance(scale)}
    model, given, noise = categorical(network), EVERY[:24].flip(1), stream(2, "sample", 24)
    given_BL = stream(1, "given", n).uniform(L) < 0.4
    plan = Plan.sample(*PlanSpec.parse("random"), Grid((2, 2)), n, noise.at("order"), given_BL)
    labels = torch.arange(n) % 2
    ask = {"speculation": Speculation.parse(draft), **options}
    whole = generate_speculated(model, plan, labels, noise, given=given, **ask)
    assert torch.equal(whole[given_BL], given[given_BL]) and not torch.equal(whole, given)
    for part in torch.arange(n).split([1, 7, 16]):
        alone = generate_speculated(model, plan.rows(part), labels[part], noise.rows(part), given=given[part], **ask)
        assert torch.equal(alone, whole[part])


def test_a_prompt_is_read_in_raster_order():
    model, n = categorical(), N
    given = EVERY[40].expand(n, -1)
    given_BL = torch.tensor([[True, False, False, False]]).expand(n, -1)
    plan = Plan.sample(*PlanSpec.parse("raster"), Grid((2, 2)), n, stream(0, "order", n), given_BL)
    drawn = draw(model, plan, "jacobi:2", given=given, prompt=True)
    p_V = torch.where(EVERY[:, 0] == EVERY[40, 0], probabilities(model, "raster"), 0)
    assert agreement(drawn, p_V / p_V.sum()) > ALPHA


def test_a_mixture_of_gaussians_is_drawn_by_rejection():
    model = small_model(NETWORKS["causal-transformer"], HEADS["gaussian-mixture"], (2, 2), Vectors(2))
    with torch.no_grad():
        model.head.mean.weight.mul_(4.0)
    n = 2000
    nobody, plan = torch.full((n,), -1), plan_of("random", n)
    alone = generate(model, plan, nobody, stream(3, "sample", n))
    for draft in ("self:3", "jacobi:2", Speculation("a run", 2, model)):
        ahead = draw(model, plan, draft)
        for one, other in zip(statistics_of(alone), statistics_of(ahead), strict=True):
            assert kolmogorov(one, other) > ALPHA
    with pytest.raises(Unsupported, match="at guidance 1 and temperature 1 alone"):
        draw(model, plan, "self", temperature=0.5)


def statistics_of(x_NLE: torch.Tensor) -> list[torch.Tensor]:
    """Numbers of each image that follow its tokens, alone and in pairs."""
    flat = x_NLE.flatten(1)
    first, *others = flat.unbind(1)
    return [*flat.unbind(1), *(first * other for other in others), flat.sum(1)]


def kolmogorov(one: torch.Tensor, other: torch.Tensor) -> float:
    from scipy import stats

    return float(stats.ks_2samp(one.numpy(), other.numpy()).pvalue)


def test_what_it_cannot_serve_is_refused_in_one_line():
    n = 2
    model, plan = categorical(), plan_of("raster", n)
    with pytest.raises(Unsupported, match="use partition=singles"):
        draw(model, plan_of("raster/equal:2", n), "self")
    for head in ("diffusion", "flow"):
        diffusion = small_model(NETWORKS["causal-transformer"], HEADS[head], (2, 2), Vectors(2))
        with pytest.raises(Unsupported, match=r"the exact probability of a token, which .* does not have"):
            draw(diffusion, plan, "self")
    with pytest.raises(Unsupported, match="name a smaller run as the draft"):
        draw(categorical("row-lstm"), plan, "jacobi")
    masked = categorical("masked-transformer")
    masked.network.sampling = type(masked.network.sampling)(refresh=2)
    with pytest.raises(Unsupported, match="refresh"):
        draw(masked, plan, "self")
    for options in ({"adaptive": "confidence"}, {"learned": True}, {"remask": Remask()}):
        with pytest.raises(UserError, match="leave out adaptive, learned, remask"):
            Settings(speculation=Speculation(), **options)
    for text in ("self:0", "", ":4"):
        with pytest.raises(UserError, match="speculation is written"):
            Speculation.parse(text)
    assert (Speculation.parse("runs/a:b"), str(Speculation.parse("self:3"))) == (Speculation("runs/a:b"), "self:3")


def test_given_tokens_alone_take_no_pass():
    model, speculation = categorical(), Speculation("self", 2)
    step_BL = torch.full((3, L), GIVEN)
    out = draw(model, Plan(step_BL, step_BL), speculation, given=EVERY[:3])
    assert torch.equal(out, EVERY[:3]) and not speculation.passes[0].any()


@pytest.mark.parametrize("draft", ["self:2", "jacobi:2", "a run:2"])
def test_what_the_causal_transformer_remembers_is_what_it_would_read_again(draft, monkeypatch):
    model, n, noise = categorical(), 200, stream(2, "sample", 200)
    plan = Plan.sample(*PlanSpec.parse("random"), Grid((2, 2)), n, noise, stream(1, "given", n).uniform(L) < 0.2)
    given, options = EVERY[torch.arange(n) % len(EVERY)], {"guidance": Guidance(1.5), "label": 1}
    smaller = categorical(strength=1.0)

    def drawn() -> torch.Tensor:
        speculation = Speculation.parse(draft)
        speculation.model = smaller
        return draw(model, plan, speculation, given=given, noise=noise, **options)

    remembered = drawn()
    monkeypatch.setattr(type(model.network), "memory", lambda network, batch, device: None)
    assert torch.equal(remembered, drawn())

"""Generation along a plan: deterministic per image, faithful to what is given, guided as published."""

from __future__ import annotations

import copy

import pytest
import torch

from mar import build, config
from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.model.model import Model
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from orderings import Grid, Plan, PlanSpec, UnknownName

SMALL = [
    "network.encoder_width=16", "network.encoder_depth=1", "network.encoder_heads=2", "network.decoder_width=16",
    "network.decoder_depth=1", "network.decoder_heads=2", "network.buffer=1",
]  # fmt: skip


def make(*overrides: str) -> Model:
    recipe = config.read("digits", [*SMALL, *overrides])
    model = build.assemble(recipe).model.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def categorical() -> Model:
    return make()


@pytest.fixture(scope="module")
def diffusion() -> Model:
    model = make("tokenizer.kind=patches", "tokenizer.patch=2", "head.kind=diffusion", "head.width=16", "head.depth=1")
    model.head.sampling = model.head.Sampling(steps=4)
    return model


def tokens(model: Model, plan: str, index: torch.Tensor, **options) -> torch.Tensor:
    noise = stream(0, "sample", index)
    rows = Plan.sample(*PlanSpec.parse(plan), Grid(model.tokenizer.shape), len(index), noise.at("order"))
    return generate(model, rows, index % 10, noise.at("tokens"), **options)


@pytest.mark.parametrize("which", ["categorical", "diffusion"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_image_k_is_the_same_in_any_batch(which, guidance, request):
    model = request.getfixturevalue(which)
    options = {"guidance": Guidance(guidance)}
    whole = tokens(model, "random/equal:8", torch.arange(12), **options)
    parts = torch.cat([tokens(model, "random/equal:8", i, **options) for i in torch.arange(12).split([5, 1, 6])])
    if which == "categorical":
        assert (whole != parts).float().mean() <= 1e-5
    else:
        largest = max(1.0, float(whole.abs().max()))  # an untrained chain amplifies: relative to what it reaches
        torch.testing.assert_close(whole / largest, parts / largest, rtol=0, atol=1e-4)
    assert torch.equal(whole, tokens(model, "random/equal:8", torch.arange(12), **options)), "same shape, same bits"


@pytest.mark.parametrize("which", ["categorical", "diffusion"])
@pytest.mark.parametrize("rule", [None, "lowest-entropy", "highest-entropy", "confidence"])
def test_given_tokens_are_kept_and_all_others_are_made_once(which, rule, request):
    model = request.getfixturevalue(which)
    if which == "diffusion" and rule is not None:
        pytest.skip("refused, as test_rules_without_exact_probabilities_are_refused shows")
    n_tokens, index = len(Grid(model.tokenizer.shape)), torch.arange(3)
    given_BL = stream(1, "given", index).uniform(n_tokens) < 0.4
    given = tokens(model, "raster/equal:16", index)
    noise = stream(0, "sample", index)
    grid = Grid(model.tokenizer.shape)
    plan = Plan.sample(*PlanSpec.parse("random/cosine:4"), grid, 3, noise.at("order"), given_BL=given_BL)
    made = torch.zeros_like(given_BL, dtype=torch.int64)

    def count(step: int, token: torch.Tensor, target_BL: torch.Tensor) -> None:
        made.add_(target_BL.long())

    arguments = (model, plan, index, noise.at("tokens"), Guidance(1.0), 1.0, given)
    out = generate(*arguments, on_step=count, rule=rule)
    assert torch.equal(out[given_BL], given[given_BL])
    assert torch.equal(made, (~given_BL).long())


def test_entropy_first_takes_the_surest_token(categorical):
    index, noise = torch.arange(4), stream(0, "sample", torch.arange(4))
    plan = Plan.sample(*PlanSpec.parse("raster"), Grid((8, 8)), 4, noise)
    chosen = []
    arguments = (categorical, plan, index, noise.at("tokens"), Guidance(), 1.0, None)
    generate(*arguments, lambda s, t, target_BL: chosen.append(target_BL), rule="lowest-entropy")
    everything = torch.ones(4, 64, dtype=torch.bool)
    state = categorical.network.begin(categorical.condition(index), ~everything)
    state = categorical.network.observe(state, torch.zeros(4, 64, 16), ~everything)
    entropy_BL = categorical.head.entropy(categorical.network.query(state, everything)).reshape(4, 64)
    assert torch.equal(chosen[0].float().argmax(1), entropy_BL.argmin(1))


def test_guidance_moves_samples_and_scale_one_does_not(categorical):
    index = torch.arange(8)
    plain = tokens(categorical, "raster/equal:16", index)
    assert torch.equal(plain, tokens(categorical, "raster/equal:16", index, guidance=Guidance(1.0)))
    assert not torch.equal(plain, tokens(categorical, "raster/equal:16", index, guidance=Guidance(5.0, "constant")))


@pytest.mark.parametrize("rule", ["lowest-entropy", "highest-entropy", "confidence"])
def test_rules_without_exact_probabilities_are_refused(diffusion, rule):
    plan = Plan.sample(*PlanSpec.parse("raster"), Grid(diffusion.tokenizer.shape), 1, stream(0, "x", 1))
    arguments = (diffusion, plan, torch.zeros(1, dtype=torch.int64), stream(0, "x", 1), Guidance(), 1.0, None)
    with pytest.raises(Unsupported):
        generate(*arguments, rule=rule)


def test_an_unknown_rule_names_the_nearest(categorical):
    plan = Plan.sample(*PlanSpec.parse("raster"), Grid((8, 8)), 1, stream(0, "x", 1))
    arguments = (categorical, plan, torch.zeros(1, dtype=torch.int64), stream(0, "x", 1), Guidance(), 1.0, None)
    with pytest.raises(UnknownName, match="did you mean 'confidence'"):
        generate(*arguments, rule="confidense")


def test_the_steps_of_the_head_fall_along_the_generation(diffusion, monkeypatch):
    asked, sample = [], diffusion.head.sample
    monkeypatch.setattr(diffusion.head, "sampling", diffusion.head.Sampling(steps=8, final_steps=2))
    monkeypatch.setattr(
        diffusion.head, "sample", lambda *args: (asked.append(diffusion.head.sampling.steps), sample(*args))[1]
    )
    tokens(diffusion, "raster/equal:4", torch.arange(3))
    assert asked == [8, 6, 4, 2]
    assert diffusion.head.sampling.steps == 8  # afterwards as before


@pytest.mark.parametrize(
    "which, weight", [("categorical", "head.logits.bias"), ("diffusion", "head.net.input_proj.bias")]
)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_tokens_that_are_no_numbers_end_a_generation(which, weight, wrong, request):
    model = copy.deepcopy(request.getfixturevalue(which))
    with torch.no_grad():
        model.get_parameter(weight).fill_(wrong)
    with pytest.raises(UserError, match="weights"):
        tokens(model, "random/equal:8", torch.arange(2))

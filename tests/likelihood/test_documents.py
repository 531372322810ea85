"""Documents of their own lengths: padding is nothing, and the probabilities of all documents sum to one.

B batch · L tokens · N documents
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mar import build, config
from mar.core.errors import Unsupported
from mar.core.noise import stream
from mar.likelihood.chain import conditionals, score
from mar.model.model import Model
from mar.networks import NETWORKS
from mar.sampling.samplers import generate
from mar.training.objectives import AnyOrder, Losses, NextSet
from mar.verification.cases import accepts, normal, raster_plan, small_network
from mar.verification.verdict import ALPHA, p_value
from orderings import Grid, Plan, PlanSpec

CAP, A, B, END = 3, 0, 1, 2  # two letters, at most three of them
SMALL = ["network.width=16", "network.depth=1", "network.heads=2"]
ONE_PASS = sorted(name for name in NETWORKS if NETWORKS[name].one_pass)


def recipe(folder, *overrides):
    (folder / "a.txt").write_text("\n".join(["a", "b", "ab", "ba", "aab", "abb", "bb", "aaaa"] * 3))
    given = [f"data.path={folder}", r"data.separator=\n", f"data.context={CAP}"]
    return config.read("shakespeare", ["data=documents", *given, *overrides])


@pytest.fixture
def model(tmp_path) -> Model:
    made = recipe(tmp_path, *SMALL)
    model = build.assemble(made).model.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return model


def every_document() -> torch.Tensor:
    """x (N, 1, 1, L): all documents of at most three letters, and what begins the longer ones."""
    ended = [[*letters, *[END] * (CAP - n)] for n in range(CAP) for letters in itertools.product([A, B], repeat=n)]
    return torch.tensor([*ended, *itertools.product([A, B], repeat=CAP)])[:, None, None]


def left_to_right(noise) -> Plan:
    return Plan.sample(*PlanSpec.parse("raster"), Grid((CAP,)), len(noise), noise)


def test_probabilities_of_all_documents_up_to_the_cap_sum_to_one(model):
    x = every_document()
    result = score(model, x, None, left_to_right, "raster")
    assert len(x) == 1 + 2 + 4 + 8
    assert sum(math.exp(-nats) for nats in result.nats_of_image) == pytest.approx(1.0, abs=1e-5)


def test_what_is_written_behind_the_end_changes_no_likelihood(model):
    x = every_document()
    before = conditionals(model, x, None, left_to_right)
    absent_NL = model.tokenizer.absent(x.flatten(1))
    other = torch.where(absent_NL, A, x.flatten(1)).reshape(x.shape)
    assert torch.equal(before.nats_NL, conditionals(model, other, None, left_to_right).nats_NL)
    assert not before.nats_NL[absent_NL].any() and bool((before.nats_NL[~absent_NL] > 0).all())


def test_figures_are_of_a_document_and_of_a_character_its_end_among_them(model):
    x = every_document()
    found = conditionals(model, x, None, left_to_right)
    result = score(model, x, None, left_to_right, "raster")
    n_tokens = int((~model.tokenizer.absent(x.flatten(1))).sum())
    assert result.nats_per_image == pytest.approx(float(found.nats_NL.sum()) / len(x))
    assert result.bits_per_dim == pytest.approx(float(found.nats_NL.sum()) / n_tokens / math.log(2.0))
    assert sum(result.tokens_per_step) == pytest.approx(n_tokens / len(x))


def test_generated_documents_follow_the_likelihood(model):
    x, noise, n = every_document(), stream(0, "sample", 6000), 6000
    p_N = torch.tensor(score(model, x, None, left_to_right, "raster").nats_of_image).neg().exp()
    token = generate(model, left_to_right(noise), torch.full((n,), -1), noise.at("tokens"))
    number = {tuple(document): k for k, document in enumerate(x.flatten(1).tolist())}
    drawn = [number[tuple(document)] for document in model.tokenizer.decode(token).flatten(1).tolist()]
    assert p_value(torch.tensor(drawn).bincount(minlength=len(x)).numpy(), p_N.numpy()) > ALPHA


def test_generation_stops_when_every_row_has_ended(model):
    steps, noise = [], stream(0, "sample", 4)
    with torch.no_grad():
        model.head.logits.bias[END] = 1e4  # every document is empty
    generate(model, left_to_right(noise), torch.full((4,), -1), noise, on_step=lambda step, *_: steps.append(step))
    assert steps == [0]


@pytest.mark.parametrize("mask_ratio", [NextSet(), AnyOrder(targets="next")])
def test_the_training_loss_is_the_nats_of_all_over_the_tokens_of_all(model, mask_ratio):
    x = every_document()
    token = x.flatten(1)
    nats_NL = conditionals(model, x, None, left_to_right).nats_NL
    plan = left_to_right(stream(0, "order", len(x))).shortened(model.tokenizer.absent(token))
    total, weight, repeats = 0.0, 0.0, 1 if mask_ratio == NextSet() else 400
    for draw in range(repeats):
        task = mask_ratio.task(plan, torch.arange(len(x)), stream(draw, "mask-ratio", 1), one_pass=True)
        noise, nobody = stream(0, "head", len(x)), torch.full((len(x),), -1)
        with torch.no_grad():
            total += float(Losses(model, AnyOrder())(token, nobody, nobody < -1, task, noise).sum())
        weight += task.denominator
    assert total / weight == pytest.approx(float(nats_NL.sum() / (~model.tokenizer.absent(token)).sum()), rel=0.02)


@pytest.mark.parametrize("name", ONE_PASS)
def test_padding_never_changes_a_context(name):
    cls, n_tokens = NETWORKS[name], 7
    try:
        network = small_network(cls, (n_tokens,))
    except Unsupported:
        pytest.skip("it serves no series")
    plan, length_B = raster_plan(n_tokens, n_tokens), torch.arange(1, n_tokens + 1)
    absent_BL = torch.arange(n_tokens) >= length_B[:, None]
    short = plan.shortened(absent_BL)
    if not accepts(network, short):
        assert network.shares_plan
        return
    condition_BC = normal(0, "condition", n_tokens, network.condition_width)
    token_BLD = normal(0, "token", n_tokens, n_tokens, network.token_width)
    padded_BLD = torch.where(absent_BL[..., None], 100.0, token_BLD)
    with torch.no_grad():
        whole_MD = network(token_BLD, plan.step_BL, condition_BC, ~absent_BL)
        short_MD = network(padded_BLD, short.step_BL, condition_BC, ~absent_BL)
    torch.testing.assert_close(whole_MD, short_MD, atol=1e-5, rtol=1e-5)


def test_a_plan_is_shortened_at_its_end_alone():
    plan, absent_BL = raster_plan(4, 1), torch.tensor([[False, False, True, True]])
    assert plan.shortened(absent_BL).n_steps_B.tolist() == [2]
    for other in (raster_plan(4, 1, one_set=True), Plan(plan.rank_BL.flip(1), plan.step_BL.flip(1))):
        with pytest.raises(Unsupported, match="come after all others"):
            other.shortened(absent_BL)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ordering=random", "from left to right, one token at a time: use ordering=raster"),
        ("partition=equal:2", "from left to right, one token at a time"),
        ("network=masked-transformer", "would be told where a document ends"),
        ("network=made", "would be told where a document ends"),
    ],
)
def test_any_order_and_sets_are_refused_when_the_recipe_is_read(tmp_path, override, words):
    made = recipe(tmp_path, override)
    with pytest.raises(Unsupported, match=words):
        build.assemble(made)

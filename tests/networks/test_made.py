"""What MADE promises beyond the contract that every network is tested for.

B batch · L tokens · D width · C condition width · H hidden units · M gathered tokens
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mar import build, config
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.likelihood.chain import token_log_prob
from mar.networks.base import ABSENT, GIVEN
from mar.networks.made import Made, MadeOptions
from mar.run import train
from mar.training import checkpoint
from mar.training.job import ModelJob
from mar.training.objectives import AnyOrder, Losses
from orderings import Grid, Plan, PlanSpec
from tests import synthetic

DEEP = MadeOptions(widths=(40, 30), token_width=2, context_width=3, condition_width=4)
OPTIONS = {
    "published": MadeOptions(widths=(60,), token_width=1, context_width=1, direct=False, condition_width=4),
    "deep": DEEP,
    "connectivity weights": replace(DEEP, connectivity_weights=True, direct=False),
}
L = 12
BATCH = 5


def made(options: MadeOptions = DEEP) -> Made:
    torch.manual_seed(0)
    network = Made((3, 4), options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def inputs(network: Made, shared: bool = False):
    torch.manual_seed(1)
    step_BL = torch.stack([torch.randperm(L) // (1 + b % 3) for b in range(BATCH)]) - 1
    if not shared:
        step_BL[1, torch.randperm(L)[:4]] = ABSENT
    step_BL = step_BL[1:2].expand(BATCH, -1) if shared else step_BL
    return torch.randn(BATCH, L, network.token_width), step_BL, torch.randn(BATCH, network.condition_width)


def scored(step_BL: torch.Tensor) -> torch.Tensor:
    return (step_BL > GIVEN) & (step_BL < ABSENT)


def by_hand(network: Made, token_LE: torch.Tensor, condition_C: torch.Tensor) -> torch.Tensor:
    """(L, D) in raster order, unit by unit: m(k) = 1 + rank, as the paper counts from 1."""
    E, D, options = network.token_width, network.context_width, network.options
    degrees = [[1 + int(r) for r in ranks] for ranks in network.rank_SH[0].split(options.widths)]
    weights = [(layer.weight, layer.bias) for layer in network.layers]
    h = []
    for k, degree in enumerate(degrees[0]):
        seen = sum(weights[0][0][k, d * E : (d + 1) * E] @ token_LE[d] for d in range(L) if degree >= d + 1)
        h.append((seen + weights[0][1][k] + network.condition.weight[k] @ condition_C).relu())
    for layer in range(1, len(degrees)):
        (weight, bias), below = weights[layer], degrees[layer - 1]
        h = [
            (bias[k] + sum(weight[k, j] * h[j] for j in range(len(h)) if degree >= below[j])).relu()
            for k, degree in enumerate(degrees[layer])
        ]
    z = (weights[-1][1] + network.output_condition.weight @ condition_C).view(L, D).clone()
    for d, channel in itertools.product(range(L), range(D)):
        row = d * D + channel
        z[d, channel] += sum(weights[-1][0][row, k] * h[k] for k in range(len(h)) if d + 1 > degrees[-1][k])
        if network.direct is not None:
            z[d, channel] += network.direct.weight[row, : d * E] @ token_LE[:d].flatten()
    return z


@pytest.mark.parametrize("options", ["published", "deep"])
@torch.no_grad()
def test_in_raster_order_it_is_the_published_network_unit_by_unit(options):
    network = made(OPTIONS[options])
    token_BLD, _, condition_BC = inputs(network)
    step_BL = torch.arange(L).expand(2, L)
    z_MD = network(token_BLD[:2], step_BL, condition_BC[:2], step_BL >= 0)
    want_MD = torch.cat([by_hand(network, token_BLD[b], condition_BC[b]) for b in range(2)])
    torch.testing.assert_close(z_MD, want_MD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_context_feels_the_earlier_tokens_and_no_other(options):
    network = made(replace(OPTIONS[options], widths=(300, 300)))
    token_BLD, step_BL, condition_BC = inputs(network)
    token_BLD.requires_grad_()
    row_M, token_M = scored(step_BL).nonzero(as_tuple=True)
    z_MD = network(token_BLD, step_BL, condition_BC, scored(step_BL))
    for m, (row, token) in enumerate(zip(row_M.tolist(), token_M.tolist(), strict=True)):
        (grad_BLD,) = torch.autograd.grad(z_MD[m].sum(), token_BLD, retain_graph=True)
        want_BL = torch.zeros_like(step_BL, dtype=torch.bool)
        want_BL[row] = step_BL[row] < step_BL[row, token]
        assert torch.equal((grad_BLD != 0).any(-1), want_BL)


@pytest.mark.parametrize("options", OPTIONS)
@torch.no_grad()
def test_rows_with_plans_of_their_own_get_what_they_get_alone(options):
    network = made(OPTIONS[options])
    token_BLD, step_BL, condition_BC = inputs(network)
    want = [
        network(token_BLD[b : b + 1], step_BL[b : b + 1], condition_BC[b : b + 1], scored(step_BL)[b : b + 1])
        for b in range(BATCH)
    ]
    for at_once in (1, 2**26):
        network.masked_at_once = at_once
        z_MD = network(token_BLD, step_BL, condition_BC, scored(step_BL))
        torch.testing.assert_close(z_MD, torch.cat(want), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_shared_plan_masks_the_weights_once():
    network = made()
    token_BLD, step_BL, condition_BC = inputs(network, shared=True)
    plans = []
    for layer in (*network.layers, network.direct):
        layer.register_forward_pre_hook(lambda _, args: plans.append(len(args[1])))
    network(token_BLD, step_BL, condition_BC, scored(step_BL))
    assert plans == [1] * 4  # two hidden layers, outputs, direct


@torch.no_grad()
def test_what_nobody_may_read_is_never_touched():
    network = made()
    token_BLD, step_BL, condition_BC = inputs(network)
    z_MD = network(token_BLD, step_BL, condition_BC, scored(step_BL))
    last_B1 = torch.where(scored(step_BL), step_BL, GIVEN).amax(1, keepdim=True)
    garbled_BLD = torch.where((step_BL >= last_B1)[..., None], torch.nan, token_BLD)
    assert torch.equal(network(garbled_BLD, step_BL, condition_BC, scored(step_BL)), z_MD)


def test_the_parameters_are_the_published_ones_and_those_of_the_condition():
    options = MadeOptions(widths=(500,), token_width=1, context_width=1, direct=False, condition_width=1)
    network = Made((28, 28), options)
    count = sum(p.numel() for p in network.parameters())
    assert count == 2 * 784 * 500 + 500 + 784 + (500 + 784)


def test_units_of_a_later_layer_are_fed_by_the_layer_before():
    network = Made((30,), MadeOptions(widths=(2, 200, 200), masks=20))
    for rank_H in network.rank_SH:
        first, second, third = rank_H.split(network.options.widths)
        assert second.min() >= first.min() and third.min() >= second.min()
        assert rank_H.min() >= 0 and rank_H.max() <= 28


@pytest.mark.parametrize("masks", [0, 3])
def test_connectivities_are_functions_of_the_stream_and_evaluation_has_the_first(masks):
    network = made(replace(DEEP, masks=masks))
    first_H = network.rank_SH[0]
    drawn = []
    for number in range(30):
        generator = stream(5, "structure", torch.tensor([number]))
        network.train().resample(generator)
        drawn.append(network.drawn_H)
        network.resample(generator)
        assert torch.equal(network.drawn_H, drawn[-1])
    different = {tuple(rank_H.tolist()) for rank_H in drawn}
    assert len(different) == (masks or 30)
    if masks:
        assert different == {tuple(rank_H.tolist()) for rank_H in network.rank_SH}
    token_BLD, step_BL, condition_BC = inputs(network)
    arguments = token_BLD, step_BL, condition_BC, scored(step_BL)
    network.resample(stream(5, "structure", torch.tensor([1 if torch.equal(drawn[0], first_H) else 0])))
    under_another = network(*arguments)
    network.eval()
    assert not torch.equal(network(*arguments), under_another)
    fresh = made(replace(DEEP, masks=masks))
    assert torch.equal(fresh(*arguments), network(*arguments))


@pytest.mark.parametrize(
    "wrong", [{"widths": ()}, {"widths": (3, 0)}, {"masks": -1}, {"token_width": 0}, {"context_width": 0}]
)
def test_impossible_numbers_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))) as error:
        replace(MadeOptions(), **wrong)
    assert "\n" not in str(error.value)


SMALL = [
    "network=made", "network.widths=[16]", "network.masks=0", "train.batch_size=16", "train.iterations=10",
    "train.validate_every=5", "train.validation_examples=8", "train.sample_every=0", "train.log_every=1",
    "train.save_every=5", "train.mask_ratio=plan",
]  # fmt: skip


def test_training_with_sampled_masks_resumes_bit_for_bit_under_one_order_an_iteration(tmp_path, monkeypatch):
    drawn, task = [], ModelJob.ask

    def watched(self, losses, batch, number, done):
        found = task(self, losses, batch, number, done)
        if losses.training:
            assert (found.step_BL == found.step_BL[:1]).all()
            drawn.append(tuple(found.step_BL[0].tolist()))
        else:
            assert len(found.step_BL.unique(dim=0)) == len(found.step_BL)  # validation is over orders
        return found

    monkeypatch.setattr(ModelJob, "ask", watched)
    train(config.read("digits", SMALL), tmp_path / "whole")
    assert len(set(drawn)) == 10
    train(config.read("digits", [*SMALL, "train.iterations=5"]), tmp_path / "parts")
    train(config.read("digits", SMALL), tmp_path / "parts")
    left, right = (weights(tmp_path / name) for name in ("whole", "parts"))
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest, _ = checkpoint.latest(run / "checkpoints")
    assert newest is not None
    return load_file(newest.path / "model.safetensors")


def test_uniform_mask_ratio_estimates_the_mean_nll_over_orders():
    recipe = config.read("digits", [*SMALL, f"data.kind={synthetic.__file__}:Synthetic", "class_conditional=false"])
    model = build.assemble(recipe).model.eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    grid, rows = Grid(model.tokenizer.shape), 3000
    token = torch.randint(0, model.tokenizer.token.vocabulary, (1, len(grid))).expand(rows, -1)
    plan = Plan.sample(*PlanSpec.parse("random"), grid, rows, stream(1, "order", rows))
    none, keep = torch.full((rows,), -1), torch.zeros(rows, dtype=torch.bool)
    task = AnyOrder().task(plan, torch.arange(rows), stream(3, "iteration", 1), one_pass=True)
    with torch.no_grad():
        loss_B = Losses(model, AnyOrder())(token, none, keep, task, stream(0, "head", rows)).double() * rows * len(grid)
    truth_B = -token_log_prob(model, token[:500], plan.rows(slice(500)), none[:500], stream(0, "x", 500)).nats_BL
    error = math.hypot(*(float(x.std()) / math.sqrt(len(x)) for x in (loss_B / task.denominator, truth_B.sum(1))))
    assert abs(float(loss_B.mean()) / task.denominator - float(truth_B.sum(1).mean())) < 4 * error

"""What orderless NADE promises beyond the contract that every network is tested for.

B batch · L tokens · D width · C condition width · M gathered tokens
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mar.core.errors import UserError
from mar.networks.base import ABSENT, GIVEN
from mar.networks.nade import Nade, NadeOptions

OPTIONS = NadeOptions(widths=(20, 16), token_width=2, context_width=3, condition_width=4)
L = 12
BATCH = 6


def nade(options: NadeOptions = OPTIONS) -> Nade:
    torch.manual_seed(0)
    network = Nade((3, 4), options)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def inputs(network: Nade):
    torch.manual_seed(1)
    step_BL = torch.stack([torch.randperm(L) // (1 + b % 3) for b in range(BATCH)]) - 1
    step_BL[2, torch.randperm(L)[:4]] = ABSENT
    now_B1 = torch.tensor([[0], [2], [1], [5], [0], [2]])
    return torch.randn(BATCH, L, network.token_width), step_BL, torch.randn(BATCH, network.condition_width), now_B1


@torch.no_grad()
def test_it_is_the_published_network_row_by_row():
    network = nade()
    token_BLD, step_BL, condition_BC, now_B1 = inputs(network)
    target_BL = (step_BL >= now_B1) & (step_BL < ABSENT)
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    row_M, token_M = target_BL.nonzero(as_tuple=True)
    layers: Any = network.hidden
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in layers)
    for z_D, row, token in zip(z_MD, row_M.tolist(), token_M.tolist(), strict=True):
        m_L = (step_BL[row] < step_BL[row, token]).float()
        x = torch.cat([token_BLD[row] * m_L[:, None], m_L[:, None]], dim=1).flatten()
        h = (w2 @ (w1 @ x + b1 + network.condition.weight @ condition_BC[row]).relu() + b2).relu()
        want_D = (network.output.weight @ h + network.output.bias).view(L, -1)[token]
        torch.testing.assert_close(z_D, want_D, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_target_a_row_costs_its_own_outputs_and_gives_the_same():
    network = nade()
    token_BLD, step_BL, condition_BC, now_B1 = inputs(network)
    all_BL = step_BL == now_B1
    z_BLD = torch.zeros(BATCH, L, 3)
    z_BLD[all_BL] = network(token_BLD, step_BL, condition_BC, all_BL)
    one_BL = torch.zeros_like(all_BL)
    one_BL[torch.arange(BATCH), torch.where(step_BL == now_B1, 1, 0).argmax(1)] = True
    network.output.register_forward_hook(lambda *_: pytest.fail("all outputs were computed"))
    torch.testing.assert_close(network(token_BLD, step_BL, condition_BC, one_BL), z_BLD[one_BL])


@torch.no_grad()
def test_the_order_of_the_known_tokens_does_not_matter():
    network = nade()
    token_BLD, step_BL, condition_BC, now_B1 = inputs(network)
    target_BL = step_BL == now_B1
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    unordered_BL = torch.where(step_BL < now_B1, GIVEN, torch.where(step_BL < ABSENT, 0, ABSENT))
    assert torch.equal(network(token_BLD, unordered_BL, condition_BC, target_BL), z_MD)
    garbled_BLD = torch.where((step_BL >= now_B1)[..., None], torch.nan, token_BLD)
    assert torch.equal(network(garbled_BLD, step_BL, condition_BC, target_BL), z_MD)


@torch.no_grad()
def test_all_steps_at_once_are_the_steps_one_by_one():
    network = nade()
    token_BLD, step_BL, condition_BC, _ = inputs(network)
    scored_BL = (step_BL >= 0) & (step_BL < ABSENT)
    z_BLD = torch.zeros(BATCH, L, 3)
    z_BLD[scored_BL] = network(token_BLD, step_BL, condition_BC, scored_BL)
    for step in range(L):
        now_BL = step_BL == step
        garbled_BLD = torch.where((step_BL >= step)[..., None], torch.nan, token_BLD)
        torch.testing.assert_close(z_BLD[now_BL], network(garbled_BLD, step_BL, condition_BC, now_BL))


@torch.no_grad()
def test_all_steps_cost_one_product_with_the_first_layer():
    """Larochelle & Murray 2011: O(L H) numbers of the first layer for all conditionals, where one alone has as many."""
    network = nade(replace(OPTIONS, widths=(20,)))
    token_BLD, _, condition_BC, _ = inputs(network)
    step_BL = torch.stack([torch.randperm(L) for _ in range(BATCH)])

    def operations(target_BL: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            network(token_BLD, step_BL, condition_BC, target_BL)
        return counter.get_total_flops()

    every, one = operations(step_BL >= 0), operations(step_BL == 3)
    assert every < 2 * one


def test_a_known_zero_is_not_an_unknown_token():
    network = nade()
    token_BLD, step_BL, condition_BC, _ = inputs(network)
    step_BL = torch.where(torch.arange(L) < 4, GIVEN, 0).expand(BATCH, -1)
    other_BL = torch.where(torch.arange(L) < 5, GIVEN, 0).expand(BATCH, -1)
    last_BL = (torch.arange(L) == L - 1).expand(BATCH, -1)
    nothing_BLD = torch.zeros_like(token_BLD)
    z_MD = network(nothing_BLD, step_BL, condition_BC, last_BL)
    assert not torch.equal(network(nothing_BLD, other_BL, condition_BC, last_BL), z_MD)


@pytest.mark.parametrize("targets", ["one", "many", "none"])
def test_gradients_reach_every_layer_and_only_known_tokens(targets):
    network = nade()
    token_BLD, step_BL, condition_BC, now_B1 = inputs(network)
    token_BLD.requires_grad_()
    target_BL = (step_BL >= now_B1) & (step_BL < ABSENT)
    if targets == "one":
        target_BL = target_BL & (target_BL.cumsum(1) == 1)
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL & (targets != "none"))
    assert len(z_MD) == (0 if targets == "none" else int(target_BL.sum()))
    z_MD.square().sum().backward()
    if targets == "none":
        return
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    latest_B1 = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True)
    assert token_BLD.grad is not None
    assert torch.equal((token_BLD.grad != 0).any(-1), step_BL < latest_B1)


def test_the_parameters_are_deep_nades_and_those_of_the_condition():
    network = Nade((28, 28), NadeOptions(token_width=1, context_width=1, condition_width=1))
    count = sum(p.numel() for p in network.parameters())
    assert count == 2 * 784 * 500 + 500 + 500 * 500 + 500 + 500 * 784 + 784 + 500


@pytest.mark.parametrize("wrong", [{"widths": ()}, {"widths": (3, 0)}, {"token_width": 0}, {"condition_width": 0}])
def test_impossible_numbers_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))) as error:
        replace(NadeOptions(), **wrong)
    assert "\n" not in str(error.value)

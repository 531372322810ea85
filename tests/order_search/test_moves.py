"""Only what a change touches is computed again, and nothing that it touches is missed."""

from __future__ import annotations

import pytest
import torch

from mar.core.errors import Unsupported
from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead
from mar.likelihood.chain import token_log_prob
from mar.networks import NETWORKS
from mar.order_search.moves import Evaluator, Ledger, propose
from mar.verification.models import small_model
from orderings import Grid, Plan, inverse, parse_partition
from tests.helpers import OnePass, StepByStep

NETWORKS = {**{kind: NETWORKS[kind] for kind in NETWORKS}, "one-pass": OnePass}
NETWORKS["step-by-step"] = StepByStep
EVERY = torch.arange(6)


def evaluator_of(network: str, partition: str) -> Evaluator:
    torch.manual_seed(0)
    model = small_model(NETWORKS[network], CategoricalHead, (3, 3), Categories(3))
    try:
        model.network.check(torch.arange(9).flip(0)[None])
    except Unsupported:
        pytest.skip(f"{network} serves raster orders alone")
    token = (stream(2, "test", 6).uniform(9) * 3).long()
    return Evaluator(model, token, torch.tensor([0, 1, -1, 0, 1, -1]), parse_partition(partition), kind="exact")


def permutation(seed: int, length: int = 9) -> torch.Tensor:
    return stream(seed, "test/order", 1).uniform(length)[0].argsort()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("partition", ["singles", "sizes:1,3,5", "equal:2"])
def test_nats_are_those_of_the_chain_along_the_plan(network, partition):
    evaluator, order_L = evaluator_of(network, partition), permutation(0)
    rank_L = inverse(order_L)
    plan = Plan(rank_L.repeat(6, 1), parse_partition(partition).steps(rank_L[None], Grid((3, 3))).repeat(6, 1))
    chain = token_log_prob(evaluator.model, evaluator.token, plan, evaluator.label_N, stream(0, "nll", 6))
    nats_NK = evaluator.nats(order_L, EVERY, torch.ones(evaluator.n_steps).bool())
    torch.testing.assert_close(nats_NK.sum(1), -chain.nats_BL.double().sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("partition", ["singles", "sizes:1,3,5", "equal:2"])
def test_steps_that_a_change_does_not_touch_keep_their_nats_and_the_others_do_not(network, partition):
    evaluator, order_L = evaluator_of(network, partition), permutation(1)
    every_K = torch.ones(evaluator.n_steps).bool()
    before_NK = evaluator.nats(order_L, EVERY, every_K)
    for number in range(12):
        changed_L = propose(evaluator, order_L, 3, number)
        touched_K = evaluator.touched(order_L, changed_L)
        difference_NK = (evaluator.nats(changed_L, EVERY, every_K) - before_NK).abs()
        assert (difference_NK[:, ~touched_K] < 1e-5).all()
        if not evaluator.model.network.one_pass:
            assert (difference_NK[:, touched_K] > 1e-5).any(0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_ledger_after_any_changes_holds_what_a_fresh_one_does(network):
    evaluator = evaluator_of(network, "equal:2")
    ledger, every = Ledger(evaluator, EVERY, permutation(2)), torch.arange(6)
    for number in range(15):
        changed_L = propose(evaluator, ledger.order_L, 4, number)
        touched_K, some = evaluator.touched(ledger.order_L, changed_L), every[number % 5 :]
        before_M, new_MK = ledger.nats(some, touched_K), evaluator.nats(changed_L, some, touched_K)
        whole = evaluator.nats(changed_L, some, torch.ones(evaluator.n_steps).bool()).sum(1)
        old = evaluator.nats(ledger.order_L, some, torch.ones(evaluator.n_steps).bool()).sum(1)
        torch.testing.assert_close(new_MK.sum(1) - before_M, whole - old, rtol=0, atol=1e-4)
        ledger.move(changed_L, some, new_MK)
    fresh = Ledger(evaluator, EVERY, ledger.order_L)
    torch.testing.assert_close(ledger.total(), fresh.total(), rtol=1e-5, atol=1e-4)


def test_a_swap_of_neighbours_costs_two_steps_and_what_is_known_costs_nothing():
    evaluator = evaluator_of("step-by-step", "singles")
    ledger = Ledger(evaluator, EVERY, permutation(3))
    ledger.total()
    assert evaluator.rows == 6 * 9
    changed_L = ledger.order_L.clone()
    changed_L[[4, 5]] = ledger.order_L[[5, 4]]
    touched_K = evaluator.touched(ledger.order_L, changed_L)
    assert touched_K.nonzero()[:, 0].tolist() == [4, 5]
    ledger.nats(EVERY, touched_K)
    assert evaluator.rows == 6 * 9
    ledger.move(changed_L, EVERY[:4], evaluator.nats(changed_L, EVERY[:4], touched_K))
    assert evaluator.rows == 6 * 9 + 4 * 2
    ledger.total()
    assert evaluator.rows == 6 * 9 + 6 * 2


def test_candidates_are_the_conditionals_of_everything_that_is_unknown():
    evaluator, order_L = evaluator_of("step-by-step", "sizes:1,3,5"), permutation(5)
    for step, known in ((0, 0), (1, 1), (2, 4)):
        found_L = evaluator.candidates(order_L, EVERY, step)
        assert (found_L[order_L[:known]] == 0).all()
        for token in order_L[known:].tolist():
            step_L = torch.ones(9).long()
            step_L[order_L[:known]], step_L[token] = -1, 0
            plan = Plan(step_L.repeat(6, 1), step_L.repeat(6, 1))
            chain = token_log_prob(evaluator.model, evaluator.token, plan, evaluator.label_N, stream(0, "nll", 6))
            assert found_L[token].item() == pytest.approx(-chain.nats_BL[:, token].mean().item(), abs=1e-5)

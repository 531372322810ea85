"""What local search tries, and how it decides."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import chisquare

from mar.core.noise import stream
from mar.order_search.moves import Ledger, mostly_small, moved, propose, race, ranks_of_sets, rotated
from tests.order_search.planted import TREE, evaluator

EVERY = torch.arange(400)


@pytest.mark.parametrize("partition", ["singles", "sizes:1,3,8", "equal:5", "sizes:11,1"])
def test_every_proposal_is_another_plan_of_the_same_tokens(partition):
    judge, order_L = evaluator(8, partition), torch.arange(12).flip(0)
    seen = set()
    for number in range(50):
        changed_L = propose(judge, order_L, 0, number)
        assert torch.equal(changed_L.sort().values, torch.arange(12))
        assert not torch.equal(judge.steps(changed_L), judge.steps(order_L))
        assert torch.equal(changed_L, propose(judge, order_L, 0, number))
        seen.add(tuple(judge.steps(changed_L).tolist()))
    assert len(seen) > 10


def test_in_one_set_there_is_no_other_plan():
    judge = evaluator(8, "sizes")
    assert propose(judge, torch.arange(12), 0, 0) is None


@pytest.mark.parametrize("count", [2, 3])
def test_tokens_of_every_group_of_sets_are_chosen_and_all_are_different_sets(count):
    step_L = torch.tensor([0, 1, 1, 1, 2, 3, 3, 4])
    chosen, ranks_seen = set(), set()
    for place in stream(0, "test/places", 2000).uniform(7).tolist():
        ranks = ranks_of_sets(step_L, count, place)
        chosen.add(tuple(step_L[ranks].tolist()))
        ranks_seen.update(ranks)
    assert chosen == set(itertools.combinations(range(5), count)) and ranks_seen == set(range(8))
    assert len(ranks_of_sets(torch.tensor([0, 0, 1]), 3, [0.9] * 7)) == 2


def test_rotations_and_segment_moves_written_out():
    order_L = torch.arange(10)
    assert rotated(order_L, [1, 4, 8], False).tolist() == [0, 8, 2, 3, 1, 5, 6, 7, 4, 9]
    assert rotated(order_L, [1, 4, 8], True).tolist() == [0, 4, 2, 3, 8, 5, 6, 7, 1, 9]
    assert rotated(order_L, [2, 3], True).tolist() == [0, 1, 3, 2, 4, 5, 6, 7, 8, 9]
    assert moved(order_L, 0.25, 0.75, 0.3).tolist() == [0, 4, 1, 2, 3, 5, 6, 7, 8, 9]
    for where, long, far in stream(0, "test/moves", 500).uniform(3).tolist():
        changed_L = moved(order_L, where, long, far)
        assert torch.equal(changed_L.sort().values, order_L) and not torch.equal(changed_L, order_L)


def test_mostly_small_numbers_follow_their_density():
    assert mostly_small(0.0, 63) == 1 and mostly_small(0.9999999, 63) == 63 and mostly_small(0.9999999, 1) == 1
    drawn = torch.tensor([mostly_small(u, 8) for u in stream(0, "test/small", 20_000).uniform(1)[:, 0].tolist()])
    edge = 1.0 / torch.arange(1, 10).double()
    expected = (edge[:-1] - edge[1:]) / (edge[0] - edge[-1]) * len(drawn)
    assert chisquare(drawn.bincount(minlength=9)[1:].numpy(), expected.numpy()).pvalue > 1e-6


def test_a_race_ends_early_when_it_can_and_moves_the_ledger_when_it_is_won():
    judge, good, bad = evaluator(400), TREE.site_L, TREE.site_L.flip(0)
    ledger = Ledger(judge, EVERY, bad)
    clear = race(ledger, good, 0, 0)
    assert clear.accepted and clear.nats < 0 and clear.images < 400 and torch.equal(ledger.order_L, good)
    worse = race(ledger, bad, 0, 0)
    assert not worse.accepted and worse.nats > 0 and worse.images < 400 and torch.equal(ledger.order_L, good)
    torch.testing.assert_close(ledger.total(), Ledger(judge, EVERY, good).total(), rtol=0, atol=1e-4)


def test_a_race_between_equals_is_lost():
    judge = evaluator(100, "singles")  # exact conditionals: every order of single tokens has the same nats
    for number in range(20):
        ledger = Ledger(judge, torch.arange(50), TREE.site_L)
        assert not race(ledger, propose(judge, TREE.site_L, 0, number), 0, number).accepted

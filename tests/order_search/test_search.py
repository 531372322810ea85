"""The search finds an order that is known to be the best, and goes on where it was interrupted."""

from __future__ import annotations

import json

import pytest
import torch

from mar.core.errors import Stopped, UserError
from mar.order_search.moves import Ledger, greedy
from mar.order_search.search import Budget, Search, search
from tests.order_search.planted import TREE, evaluator, generations, samples

LENGTH = TREE.rows * TREE.cols
BEST = [set(sites.tolist()) for sites in TREE.site_L.split(list(TREE.best_sizes))]
LEAVES_FIRST = TREE.site_L.flip(0)
STARTS = {"lowest-entropy": None, "leaves first": LEAVES_FIRST}


@pytest.mark.parametrize(("seed", "one_pass"), [(0, False), (1, False), (2, True)])
def test_the_search_finds_the_best_order_of_the_tree(seed, one_pass):
    found = search(evaluator(1600, one_pass=one_pass), Search({}), STARTS, Budget(5.0, proposals=600), seed)
    assert generations(torch.tensor(found.best)) == BEST
    assert found.best_nats < min(found.starts.values()) - 0.1 and found.finished


def test_the_best_order_of_the_tree_loses_nothing_by_its_sets():
    exact = -TREE.log_probability(samples(500))
    along = Ledger(evaluator(500), torch.arange(500), TREE.site_L).total()
    torch.testing.assert_close(along, exact, rtol=0, atol=1e-4)
    assert float(exact.mean()) == pytest.approx(TREE.entropy, abs=4 * float(exact.std()) / 500**0.5)


def test_single_tokens_under_exact_conditionals_leave_nothing_to_find():
    found = search(evaluator(60, "singles"), Search({}), {"leaves first": LEAVES_FIRST}, Budget(5.0, proposals=60))
    assert found.accepted == 0 and found.best == tuple(LEAVES_FIRST.tolist())


def test_the_minutes_include_the_starts_of_which_one_is_always_scored():
    found = search(evaluator(60), Search({}), STARTS, Budget(0.0))
    assert list(found.starts) == ["leaves first"] and found.best == tuple(LEAVES_FIRST.tolist())
    assert found.finished and found.proposals == 0


def test_greedy_takes_the_surest_tokens_and_its_mirror_the_least_sure():
    judge = evaluator(400)
    order_L = greedy(judge, torch.arange(400))
    assert order_L[0] == judge.candidates(order_L, torch.arange(400), 0).argmin()
    nats_L = judge.candidates(order_L, torch.arange(400), 1)
    rest = sorted(range(LENGTH), key=lambda site: nats_L[site])
    assert set(order_L[1:4].tolist()) == set([site for site in rest if site != order_L[0]][:3])
    other_L = greedy(judge, torch.arange(400), lowest=False)
    assert torch.equal(order_L.sort().values, torch.arange(LENGTH)) and not torch.equal(order_L, other_L)


def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path):
    file, question, budget = tmp_path / "search.json", {"seed": 3}, Budget(5.0, proposals=120)

    def keep(state: Search) -> None:
        file.write_text(state.text())

    whole = search(evaluator(120), Search(question), STARTS, budget, 3)
    for stop in (1, 40, 41):

        def say(state: Search, doing: str, stop: int = stop) -> None:
            if doing == "local search" and state.proposals == stop:
                raise KeyboardInterrupt

        with pytest.raises(Stopped):
            search(evaluator(120), Search.load(file, question), STARTS, budget, 3, keep, say)
        kept = json.loads(file.read_text())
        assert kept["proposals"] == stop and sorted(kept["best"]) == list(range(LENGTH))
    resumed = search(evaluator(120), Search.load(file, question), STARTS, budget, 3, keep)
    for name in ("order", "best", "proposals", "accepted", "start"):
        assert getattr(resumed, name) == getattr(whole, name)
    assert whole.accepted > 0 and resumed.best_nats == pytest.approx(whole.best_nats, abs=1e-4)
    longer = search(evaluator(120), Search.load(file, question), STARTS, Budget(5.0, proposals=130), 3, keep)
    assert longer.proposals == 130 and longer.seconds > resumed.seconds


def test_control_images_decide_which_order_is_kept():
    found = search(evaluator(120), Search({}), STARTS, Budget(5.0, proposals=120), 3)
    nats = [found.starts[found.start], *(step.control_nats for step in found.improvements)]
    assert found.best_nats == min(nats) and len(found.improvements) == found.accepted
    judge = evaluator(120)
    control = Ledger(judge, torch.arange(0, 120, 4), torch.tensor(found.best))
    assert float(control.total().mean()) == pytest.approx(found.best_nats, abs=1e-4)


def test_another_search_in_the_same_file_is_refused(tmp_path):
    file = tmp_path / "search.json"
    file.write_text(Search({"seed": 3, "n": 10}).text())
    with pytest.raises(UserError, match="holds another search \\(seed is 3 there, 4 here\\)"):
        Search.load(file, {"seed": 4, "n": 10})
    file.write_text("[]")
    with pytest.raises(UserError, match="holds no search"):
        Search.load(file, {})
    with pytest.raises(UserError, match="in one set all orders are alike"):
        search(evaluator(40, "sizes"), Search({}), STARTS, Budget(1.0))
    with pytest.raises(UserError, match="at least 8 images"):
        search(evaluator(7), Search({}), STARTS, Budget(1.0))

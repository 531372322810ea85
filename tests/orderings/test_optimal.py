"""The best set sizes: against brute force, against closed forms, and as a partition."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from mar.core.files import write_atomic
from mar.model.plans import costs_file, resolve_optimal
from mar.verification.orderings import verify_partition
from orderings import GIVEN, Grid, InvalidRequest, Plan, PlanSpec, Unsupported, parse_partition
from orderings.optimal import Optimal, SetCosts, best_sets, cost_of, read_set_costs
from tests.orderings import cases


def uniform_costs(nats: list[float]) -> SetCosts:
    return SetCosts("random", str(len(nats)), True, nats, [0.0] * len(nats), 2)


def write(costs: SetCosts, path: Path) -> None:
    write_atomic(path, json.dumps(asdict(costs)))


def fixed_costs(n: int, seed: int) -> SetCosts:
    rng = np.random.default_rng(seed)
    return SetCosts("raster", str(n), False, [rng.normal(1.0, 1.0, n - s).tolist() for s in range(n)], [0.0] * n, 2)


def random_costs(n: int, seed: int) -> SetCosts:
    return uniform_costs(np.random.default_rng(seed).normal(1.0, 1.0, n).tolist())


def compositions(n: int, k: int):
    for cuts in itertools.combinations(range(1, n), k - 1):
        yield np.diff([0, *cuts, n]).tolist()


def by_hand(costs: SetCosts, sizes: list[int], start: int = 0) -> float:
    total = 0.0
    for size in sizes:
        row = [costs.nats[start]] * size if costs.uniform else costs.nats[start][:size]
        total, start = total + sum(row), start + size
    return total


@pytest.mark.parametrize("make", [random_costs, fixed_costs])
@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_the_best_sets_are_those_of_brute_force(make, n):
    costs = make(n, seed=n)
    cost_SE = costs.matrix()
    best = best_sets(cost_SE, n)
    for start in range(n):
        for k in range(1, n - start + 1):
            values = {tuple(sizes): by_hand(costs, sizes, start) for sizes in compositions(n - start, k)}
            found = best.sizes(k, start)
            assert best.nats_KS[k, start] == pytest.approx(min(values.values()))
            assert values[tuple(found)] == pytest.approx(min(values.values()))
        assert np.isinf(best.nats_KS[n - start + 1 :, start]).all()
    assert cost_of(cost_SE, best.sizes(n)) == pytest.approx(by_hand(costs, [1] * n))


def test_all_sets_cost_alike_when_a_token_costs_the_same_whatever_is_known():
    best = best_sets(uniform_costs([0.5] * 20).matrix(), 20)
    assert best.nats_KS[1:, 0] == pytest.approx(np.full(20, 10.0))
    assert best.sizes(4) == [1, 1, 1, 17]  # ties: the smallest first


def test_sets_are_equal_when_a_token_costs_linearly_less_with_each_known_one():
    """l(t) = a - b t: the cost is a L - b sum_{i<j} n_i n_j, which equal sizes make least."""
    best = best_sets(uniform_costs([3.0 - 0.1 * t for t in range(24)]).matrix(), 24)
    for k in (2, 3, 4, 6, 8, 12):
        assert best.sizes(k) == [24 // k] * k
        assert best.nats_KS[k, 0] == pytest.approx(72.0 - 0.05 * (24**2 - 24**2 / k))


def test_tokens_that_need_one_token_only_come_at_once_after_it():
    best = best_sets(uniform_costs([2.0] + [1.0] * 15).matrix(), 2)
    assert best.sizes(2) == [1, 15] and best.nats_KS[2, 0] == pytest.approx(17.0)


def test_a_thousand_tokens_are_solved_for_every_number_of_sets():
    cost_SE = uniform_costs((1.0 / np.sqrt(np.arange(1, 1025))).tolist()).matrix()
    best = best_sets(cost_SE, 64)
    assert sum(best.sizes(64)) == 1024 and len(best.sizes(64)) == 64
    assert (np.diff(best.nats_KS[1:, 0]) < 0).all()
    assert cost_of(cost_SE, best.sizes(64)) == pytest.approx(best.nats_KS[64, 0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "costs.json"
    write(fixed_costs(16, seed=0), file)
    return file


def test_costs_survive_the_file(path):
    assert np.array_equal(read_set_costs(path).matrix(), fixed_costs(16, seed=0).matrix())


def test_with_costs_it_keeps_the_contract_of_a_partition(path):
    assert all(verdict.passed for verdict in verify_partition(Optimal(3, str(path)), "optimal"))


def test_the_plan_has_the_best_sizes(path):
    sizes = best_sets(fixed_costs(16, seed=0).matrix(), 5).sizes(5)
    plan = Plan.sample(*PlanSpec.parse(f"raster/optimal:5:costs=({path})"), Grid((4, 4)), 2, cases.noise(2))
    assert plan.sizes().tolist() == [sizes, sizes]


def test_with_given_tokens_the_rest_is_cut_as_the_end_of_an_order_is(path):
    best = best_sets(fixed_costs(16, seed=0).matrix(), 5)
    given_BL = torch.arange(16)[None] % 4 == 0
    partition = Optimal(5, str(path))
    plan = Plan.sample(PlanSpec.parse("hilbert")[0], partition, Grid((4, 4)), 1, cases.noise(1), given_BL)
    assert plan.sizes()[0].tolist() == best.sizes(5, start=4) and (plan.step_BL[given_BL] == GIVEN).all()


def test_a_new_measurement_is_read_anew(path):
    partition = Optimal(2, str(path))
    write(uniform_costs([2.0] + [1.0] * 15), path)
    assert partition.sizes(16).tolist() == [1, 15]
    write(uniform_costs([3.0 - 0.1 * t for t in range(16)]), path)
    assert partition.sizes(16).tolist() == [8, 8]


def test_it_is_written_short():
    assert PlanSpec.parse("random/optimal:4")[1] == Optimal(4) and str(
        PlanSpec(PlanSpec.parse("raster")[0], Optimal(4))
    ).endswith("/optimal:4")
    written = str(PlanSpec(PlanSpec.parse("raster")[0], Optimal(4, "runs/a/costs.json")))
    assert written == "raster/optimal:4:costs=(runs/a/costs.json)"
    assert PlanSpec.parse(written)[1] == Optimal(4, "runs/a/costs.json")


def test_a_run_reads_its_own_costs_for_each_ordering(tmp_path):
    with pytest.raises(Unsupported, match=r"measure first, mar score sets .* --plans random"):
        resolve_optimal(Optimal(3), "random", tmp_path)
    file = costs_file(tmp_path, "random")
    assert file == tmp_path / "scores" / "set-costs-random.json"
    write(random_costs(16, seed=0), file)
    assert resolve_optimal(Optimal(3), "random", tmp_path) == Optimal(3, str(file))
    assert resolve_optimal(Optimal(3, "mine.json"), "raster", tmp_path) == Optimal(3, "mine.json")
    assert resolve_optimal(parse_partition("cosine:3"), "raster", tmp_path) == parse_partition("cosine:3")
    with pytest.raises(Unsupported, match="measure first"):
        resolve_optimal(Optimal(3), "raster", tmp_path)


def test_what_cannot_be_is_refused(path, tmp_path):
    def draw(partition, grid):
        Plan.sample(PlanSpec.parse("raster")[0], partition, Grid.parse(grid), 1, cases.noise(1))

    with pytest.raises(Unsupported, match="optimal:16 needs set costs: mar score sets RUN"):
        draw(Optimal(), "4x4")
    with pytest.raises(Unsupported, match="measured for 16 tokens, but 4x5 has 20"):
        draw(Optimal(4, str(path)), "4x5")
    with pytest.raises(Unsupported, match="optimal:17 asks for more steps than the 16 tokens"):
        draw(Optimal(17, str(path)), "4x4")
    with pytest.raises(InvalidRequest, match="no file of set costs"):
        draw(Optimal(4, str(tmp_path / "absent.json")), "4x4")
    with pytest.raises(InvalidRequest, match="at least 1, not 0"):
        parse_partition("optimal:0")
    for content in ({}, {"ranks": [1]}, [1], {**json.loads(path.read_text()), "nats": [[1.0, 2.0], [1.0, 3.0]]}):
        path.write_text(json.dumps(content))
        with pytest.raises(InvalidRequest, match="holds no set costs"):
            draw(Optimal(4, str(path)), "4x4")

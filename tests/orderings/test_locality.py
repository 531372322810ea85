"""LPD's locality-aware order: the published rule, number by number, and what it promises."""

from __future__ import annotations

import pytest
import torch

from orderings import Grid, InvalidRequest, Plan, PlanSpec, Unsupported, parse_ordering
from tests.orderings import cases

# ``lpd_order_schedule`` of LPD, both thresholds 1, under our shuffles: its first token and every tie follow them.
PUBLISHED = [
    [0, 1, 24, 6, 19, 20, 5, 2, 18, 15, 7, 23, 10, 14, 21, 11, 13, 22, 3, 9, 4, 8, 16, 17, 12],
    [22, 21, 23, 17, 20, 24, 16, 18, 0, 4, 19, 15, 12, 9, 1, 13, 11, 3, 7, 5, 14, 8, 6, 10, 2],
]


def test_orders_are_those_of_the_published_code():
    plan = Plan.sample(*PlanSpec.parse("locality:1/sizes:1,2,3,4,5,6,4"), Grid((5, 5)), 2, cases.noise(2))
    assert plan.rank_BL.argsort(1).tolist() == PUBLISHED


def test_one_at_a_time_every_token_touches_most_known_ones():
    grid = Grid((5, 6))
    at = grid.coordinates()
    offset = (at[:, None] - at).abs()
    weight = (offset.sum(2) == 1) + ((offset == 1).all(2) / 2**0.5)
    for order in parse_ordering("locality").ranks(grid, 20, cases.noise(20)).argsort(1):
        for n in range(1, 30):
            score = weight[:, order[:n]].sum(1)
            assert score[order[n]] == pytest.approx(float(score[order[n:]].max()))


@pytest.mark.parametrize("repulsion", [1, 2])
def test_tokens_of_a_set_keep_their_distance_while_there_is_room(repulsion):
    grid = Grid((12, 12))
    plans = [
        Plan.sample(*PlanSpec.parse(f"{ordering}/cosine:24"), grid, 10, cases.noise(10))
        for ordering in (f"locality:{repulsion}", "random")
    ]
    ours, random = (_crowded(plan, grid.coordinates(), repulsion) for plan in plans)
    assert ours == 0 and random > 20


def _crowded(plan: Plan, at: torch.Tensor, repulsion: int) -> int:
    found = 0
    for step_L in plan.step_BL:
        for step in range(12):  # until half of the tokens are known
            apart = (at[step_L == step][:, None] - at[step_L == step]).abs().amax(2).fill_diagonal_(99)
            found += int((apart <= repulsion).any())
    return found


def test_the_order_depends_on_the_partition_also_inside_other_orderings():
    grid = Grid((6, 6))

    def ranks(plan: str) -> torch.Tensor:
        return Plan.sample(*PlanSpec.parse(plan), grid, 4, cases.noise(4)).rank_BL

    sets = "sets=1,5,10,12,8"
    assert not torch.equal(ranks("locality"), ranks("locality/sizes:1,5,10,12,8"))
    assert torch.equal(ranks("locality/sizes:1,5,10,12,8"), ranks(f"locality:{sets}"))
    assert torch.equal(ranks("locality"), ranks("locality/blocks:2"))  # cut by place: the order of single tokens
    for outside in ("mixture:(locality{})", "annealed:(locality{})", "symmetries:(locality{})"):
        assert torch.equal(ranks(f"{outside.format('')}/sizes:1,5,10,12,8"), ranks(outside.format(f":{sets}")))
    turned = ranks(f"locality:{sets}:rot90=1").reshape(4, 6, 6)
    assert torch.equal(turned, ranks("locality/sizes:1,5,10,12,8").reshape(4, 6, 6).rot90(-1, (1, 2)))


@pytest.mark.parametrize(
    ("text", "grid", "message"),
    [
        ("locality:sets=1,2", "4x4", "sets that sum to 3 are not for the 16 tokens of 4x4"),
        ("locality", "65x64", "at most 4,096 tokens"),
    ],
)
def test_grids_and_sets_that_do_not_fit_are_refused(text, grid, message):
    with pytest.raises(Unsupported, match=message):
        parse_ordering(text).ranks(Grid.parse(grid), 1, cases.noise(1))
    with pytest.raises(InvalidRequest, match="repulsion is in 0"):
        parse_ordering("locality:-1")

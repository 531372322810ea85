"""Exact conditionals plugged in: the chain gives the joint NLL under every order, the factorised value under sets.

B batch · L tokens
"""

from __future__ import annotations

import pytest
import torch

from mar.core.noise import stream
from mar.likelihood.chain import TokenLogProb, score, token_log_prob
from mar.model.model import Model
from orderings import ABSENT, GIVEN, ORDERINGS, PARTITIONS, Grid, Plan, PlanSpec
from tests.likelihood.closed_forms.joint import Enumerated, factorised_nll, joint_nll, total_correlation
from tests.likelihood.closed_forms.plugged import JOINTS, NETWORKS, OnePass, plugged
from tests.orderings.cases import orderings, partitions, plan_or_none

N = 4
ORDERS = {name: ordering for name, ordering in orderings().items() if name != "file"}
SETS = partitions() | {f"small {name}": cls(**cls.test_options) for name, cls in PARTITIONS.items() if cls.test_options}
CUT_ORDERS = ("raster", "random")


def served(texts: dict, other: tuple[str, ...], plan) -> list:
    """(joint, text, other) wherever the orderings serve that joint's grid."""
    return [
        (joint, text, o)
        for joint in JOINTS
        for text in texts
        for o in other
        if plan(texts[text], o, Grid(JOINTS[joint].shape)) is not None
    ]


def order_plan(ordering, partition: str, grid: Grid, **tokens) -> Plan | None:
    return plan_or_none(ordering, PlanSpec.parse(f"raster/{partition}")[1], grid, N, **tokens)


def set_plan(partition, ordering: str, grid: Grid, **tokens) -> Plan | None:
    return plan_or_none(PlanSpec.parse(ordering)[0], partition, grid, N, **tokens)


SINGLES = served(ORDERS, ("singles",), order_plan)
CUT = served(SETS, CUT_ORDERS, set_plan)


@pytest.fixture(params=NETWORKS)
def network(request) -> str:
    return request.param


def example(joint: str, network: str) -> tuple[Model, torch.Tensor, Grid]:
    chosen = JOINTS[joint]
    return plugged(chosen, NETWORKS[network]), chosen.sample(stream(0, "data", N)), Grid(chosen.shape)


def chain(model: Model, token: torch.Tensor, plan: Plan, **options) -> TokenLogProb:
    return token_log_prob(model, token, plan, torch.full((len(token),), -1), stream(0, "nll", len(token)), **options)


def close(nats: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(nats.double(), expected, rtol=1e-5, atol=1e-5)


def some_tokens(grid: Grid) -> dict[str, torch.Tensor]:
    """Given and absent tokens: other ones in each row, none in the first, and nothing to score in the last."""
    given_BL, absent_BL = torch.zeros(N, len(grid), dtype=torch.bool), torch.zeros(N, len(grid), dtype=torch.bool)
    given_BL[1, ::3], absent_BL[1, 1::4] = True, True
    given_BL[2, -2:], absent_BL[2, :2] = True, True
    given_BL[3] = True
    return {"given_BL": given_BL & ~absent_BL, "absent_BL": absent_BL}


@pytest.mark.parametrize(("joint", "ordering", "partition"), SINGLES)
def test_one_token_at_a_time_is_the_joint_nll_under_every_order(joint, ordering, partition, network):
    model, token, grid = example(joint, network)
    plan = order_plan(ORDERS[ordering], partition, grid)
    assert plan is not None and (plan.n_steps_B == len(grid)).all()
    result = chain(model, token, plan)
    everything_BL = torch.ones(N, len(grid), dtype=torch.bool)
    assert result.kind == "exact" and result.forward_rows == (N if network == "one pass" else N * len(grid))
    close(-result.nats_BL.sum(1), -JOINTS[joint].log_marginal(token, everything_BL))
    close(-result.nats_BL, factorised_nll(JOINTS[joint], token, plan))


@pytest.mark.parametrize(("joint", "partition", "ordering"), CUT)
def test_sets_are_the_factorised_value(joint, partition, ordering, network):
    model, token, grid = example(joint, network)
    plan = set_plan(SETS[partition], ordering, grid)
    assert plan is not None
    close(-chain(model, token, plan).nats_BL, factorised_nll(JOINTS[joint], token, plan))


@pytest.mark.parametrize("text", ["random", "spiral/equal:2", "raster/sizes", "halton/cosine:3"])
@pytest.mark.parametrize("joint", [name for name in JOINTS if len(JOINTS[name].shape) > 1])
def test_given_and_absent_tokens(joint, text, network):
    """Given ones are conditioned on, absent ones are left out of the joint; neither is scored."""
    model, token, grid = example(joint, network)
    plan = Plan.sample(*PlanSpec.parse(text), grid, N, stream(0, "order", N), **some_tokens(grid))
    nats_BL = -chain(model, token, plan).nats_BL
    close(nats_BL, factorised_nll(JOINTS[joint], token, plan))
    assert (nats_BL[(plan.step_BL == GIVEN) | (plan.step_BL == ABSENT)] == 0).all()
    if text == "random":
        close(nats_BL.sum(1), joint_nll(JOINTS[joint], token, plan))


@pytest.mark.parametrize("joint", JOINTS)
def test_any_memory_budget_gives_the_same_chain(joint, network):
    model, token, grid = example(joint, network)
    plan = Plan.sample(*PlanSpec.parse("random/equal:3"), grid, N, stream(0, "order", N))
    close(-chain(model, token, plan, budget=1).nats_BL, factorised_nll(JOINTS[joint], token, plan))


@pytest.mark.parametrize("text", ["raster", "random", "reverse/equal:3", "random/linear:3"])
@pytest.mark.parametrize("joint", JOINTS)
def test_the_score_of_images_is_their_mean(joint, text, network):
    model, _, grid = example(joint, network)
    token = JOINTS[joint].sample(stream(1, "data", 300))  # more than are scored at a time
    plans = []

    def draw(noise) -> Plan:
        plans.append(Plan.sample(*PlanSpec.parse(text), grid, len(noise), noise))
        return plans[-1]

    result = score(model, token, None, draw, text)
    step_NL = torch.cat([plan.step_BL for plan in plans])
    expected_NL = factorised_nll(JOINTS[joint], token, Plan(step_NL, step_NL))
    close(torch.tensor(result.nats_of_image), expected_NL.sum(1))
    close(torch.tensor(result.nats_per_position), expected_NL.mean(0))
    by_step = [torch.where(step_NL == k, expected_NL, 0.0).sum(1).mean() for k in range(result.steps)]
    close(torch.tensor(result.nats_per_step), torch.stack(by_step))
    assert result.nats_per_image == pytest.approx(float(expected_NL.sum(1).mean()), rel=1e-5)
    assert result.standard_error_nats == pytest.approx(float(expected_NL.sum(1).std() / 300**0.5), rel=1e-4)


def test_every_registered_ordering_and_partition_is_scored():
    assert {text for _, text, _ in SINGLES} == set(ORDERS) >= set(ORDERINGS) - {"file"}
    assert {type(SETS[text]) for _, text, _ in CUT} == {cls for name, cls in PARTITIONS.items() if name != "optimal"}


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize("joint", JOINTS)
def test_a_network_that_is_off_by_one_step_is_caught(joint, shift):
    class OffByOne(OnePass):
        def now(self, step_BL: torch.Tensor, target_BL: torch.Tensor) -> torch.Tensor:
            return step_BL + shift

    token, grid = JOINTS[joint].sample(stream(0, "data", N)), Grid(JOINTS[joint].shape)
    plan = Plan.sample(*PlanSpec.parse("random/equal:2"), grid, N, stream(0, "order", N))
    nats_B = -chain(plugged(JOINTS[joint], OffByOne), token, plan).nats_BL.sum(1)
    assert not torch.allclose(nats_B.double(), factorised_nll(JOINTS[joint], token, plan).sum(1), atol=1e-2)


@pytest.mark.parametrize("joint", ["gaussian", "markov", "ising"])
def test_the_closed_form_of_the_excess_is_the_mean_of_the_factorised_value(joint):
    """The tests' own two formulas agree: where everything can be listed exactly, for a Gaussian in its entropies."""
    chosen, grid = JOINTS[joint], Grid(JOINTS[joint].shape)
    plan = Plan.sample(*PlanSpec.parse("random/equal:3"), grid, 1, stream(0, "order", 1))
    excess = total_correlation(chosen, plan)[0]
    everything_L = torch.ones(len(grid), dtype=torch.bool)
    if joint == "gaussian":
        step_L, mean = plan.step_BL[0], torch.zeros(()).double()
        for place in range(len(grid)):
            past_L = step_L < step_L[place]
            one_L = torch.arange(len(grid)) == place
            mean += chosen.entropy(past_L | one_L) - chosen.entropy(past_L)
    else:
        assert isinstance(chosen, Enumerated)
        rows = plan.step_BL.expand(len(chosen.everything), -1)
        nats_X = factorised_nll(chosen, chosen.everything, Plan(rows, rows)).sum(1)
        mean = (chosen.log_probability(chosen.everything).exp() * nats_X).sum()
    assert float(excess) > 0.05
    close(mean - chosen.entropy(everything_L), excess)

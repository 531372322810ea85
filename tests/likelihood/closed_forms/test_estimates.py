"""Sub-sampled steps and ensembles of orders, where the truth is known.

N images · S orders · L tokens
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mar.core.errors import Unsupported
from mar.core.noise import Noise, stream
from mar.likelihood.chain import score
from mar.likelihood.estimate import EVERY_STEP, Estimator, Repeats, check_log_mean_exp, score_several
from mar.likelihood.summary import Likelihood
from orderings import Grid, Plan, PlanSpec
from tests.likelihood.closed_forms.joint import factorised_nll
from tests.likelihood.closed_forms.plugged import JOINTS, NETWORKS, OnePass, plugged

ESTIMATORS = ["steps:1", "steps:3", "steps:4"]


def along(text: str, joint: str, network: str, token: torch.Tensor, **options: Any) -> Likelihood:
    grid = Grid(JOINTS[joint].shape)
    model = plugged(JOINTS[joint], NETWORKS[network])
    return score(
        model, token, None, lambda noise: Plan.sample(*PlanSpec.parse(text), grid, len(noise), noise), text, **options
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("text", ["raster", "random", "random/linear:5"])
@pytest.mark.parametrize(("joint", "network"), [("gaussian", "a pass per step"), ("ising", "one pass")])
def test_sub_sampled_steps_are_unbiased(joint, network, text, estimator):
    """On the same images and orders, the mean error is zero within its own standard error."""
    token = JOINTS[joint].sample(stream(5, "data", 400))
    truth = along(text, joint, "one pass", token)
    found = along(text, joint, network, token, estimator=Estimator.parse(estimator))
    error_N = torch.tensor(found.nats_of_image) - torch.tensor(truth.nats_of_image)
    assert found.kind == "estimate" and found.head_kind == "exact"
    assert float(error_N.std()) > 0.05
    assert abs(float(error_N.mean())) < 3.5 * float(error_N.std()) / 400**0.5
    if network == "a pass per step":
        assert found.forward_rows_per_image <= Estimator.parse(estimator).steps


@pytest.mark.parametrize("estimator", ["exact", *ESTIMATORS])
@pytest.mark.parametrize("text", ["raster", "random"])
def test_intervals_cover_the_entropy_as_often_as_they_say(text, estimator):
    """400 times 64 grids: the share whose 95 % interval covers the entropy, within three standard errors of it."""
    joint = JOINTS["markov"]
    token = joint.sample(stream(6, "data", 400 * 64))
    found = along(text, "markov", "one pass", token, estimator=Estimator.parse(estimator))
    batch = torch.tensor(found.nats_of_image).reshape(400, 64)
    truth = float(joint.entropy(torch.ones(7, dtype=torch.bool)))
    covered = ((batch.mean(1) - truth).abs() < 1.96 * batch.std(1) / 8.0).double().mean()
    assert 0.917 < float(covered) < 0.983
    assert abs(found.nats_per_image - truth) < 3.5 * found.standard_error_nats


def ensemble(joint: str, text: str, token: torch.Tensor, estimator: Estimator = EVERY_STEP, S: int = 5) -> Likelihood:
    model, grid = plugged(JOINTS[joint], OnePass), Grid(JOINTS[joint].shape)

    def score_one(order: int = 0, repeat: int = 0, **to: Any) -> Likelihood:
        def shared(noise: Noise) -> Plan:
            return shared_plan(text, grid, order, len(noise))

        return score(model, token, None, shared, text, repeat=repeat, estimator=estimator, **to)

    return score_several(model.tokenizer, score_one, Repeats(orders=S), None, None)


def shared_plan(text: str, grid: Grid, order: int, batch: int) -> Plan:
    plan = Plan.sample(*PlanSpec.parse(text), grid, 1, stream(0, "orders", torch.tensor([order])))
    return plan.rows(torch.zeros(batch, dtype=torch.int64))


@pytest.mark.parametrize("joint", JOINTS)
def test_the_ensemble_of_exact_orders_is_the_joint_nll(joint):
    """Every order gives the same joint: its mixture is that joint, for any number of orders."""
    token = JOINTS[joint].sample(stream(7, "data", 30))
    everything_BL = torch.ones(30, len(Grid(JOINTS[joint].shape)), dtype=torch.bool)
    truth = float(-JOINTS[joint].log_marginal(token, everything_BL).mean())
    found = ensemble(joint, "random", token)
    assert found.ensemble is not None and [point.orders for point in found.ensemble] == [1, 2, 4, 5]
    for point in found.ensemble:
        assert point.nats_per_image == pytest.approx(truth, rel=1e-5, abs=1e-5)
    assert found.nats_per_image == pytest.approx(truth, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("joint", JOINTS)
def test_the_ensemble_of_orders_of_sets_is_the_mixture_of_their_densities(joint):
    token, grid = JOINTS[joint].sample(stream(8, "data", 30)), Grid(JOINTS[joint].shape)
    log_p_SN = torch.stack(
        [-factorised_nll(JOINTS[joint], token, shared_plan("random/equal:3", grid, s, 30)).sum(1) for s in range(5)]
    )
    found = ensemble(joint, "random/equal:3", token)
    assert found.ensemble is not None
    for point in found.ensemble:
        used_SN = log_p_SN[: point.orders]
        truth = float((math.log(point.orders) - used_SN.logsumexp(0)).mean())
        assert point.nats_per_image == pytest.approx(truth, rel=1e-5, abs=1e-5)
    assert found.nats_per_image == pytest.approx(float(-log_p_SN.mean()), rel=1e-5)
    assert found.ensemble[-1].nats_per_image < found.nats_per_image


def test_an_ensemble_of_estimates_is_refused_and_its_mean_is_not():
    token = JOINTS["ising"].sample(stream(9, "data", 30))
    found = ensemble("ising", "random", token, Estimator(steps=3))
    assert not found.ensemble and any("Jensen" in warning for warning in found.warnings)
    with pytest.raises(Unsupported, match="too large in expectation"):
        check_log_mean_exp(found)

"""The solvers of differential equations against closed forms and scipy; log-densities of flows that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.func import jacrev, vmap

from mar.core.errors import UserError
from mar.heads.base import Head, replaced_options
from mar.heads.denoiser import Denoiser
from mar.heads.ode import OdeScoring, integrate, log_density, with_divergence


def pendulum(state_NS: torch.Tensor, time: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
    """Two coupled, driven, nonlinear channels; row n is driven n + 1 times as fast."""
    drive_N = ((row_N + 1) * time).cos()
    return torch.stack([state_NS[:, 1], drive_N - state_NS[:, 0].sin()], 1)


STARTS = torch.tensor([[0.3, 0.0], [1.0, -0.5], [2.0, 0.7], [0.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)


def reference(start: float, end: float) -> torch.Tensor:
    def rates(t: float, y: np.ndarray, n: int) -> list[float]:
        return [y[1], math.cos((n + 1) * t) - math.sin(y[0])]

    solved = [
        solve_ivp(rates, (start, end), y.numpy(), "DOP853", args=(n,), rtol=1e-11, atol=1e-12)
        for n, y in enumerate(STARTS)
    ]
    return torch.tensor(np.stack([s.y[:, -1] for s in solved]))


@pytest.mark.parametrize("start, end", [(0.0, 2.0), (1.0, -0.5)])
@pytest.mark.parametrize("solver, order", [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order, start, end):
    wanted = reference(start, end)
    coarse, fine = (
        (integrate(pendulum, STARTS, start, end, solver, steps, 0.0).state_NS - wanted).norm() for steps in (40, 80)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("start, end", [(0.0, 2.0), (1.0, -0.5)])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_the_adaptive_solver_keeps_its_tolerance_in_either_direction(tolerance, start, end):
    solved = integrate(pendulum, STARTS, start, end, "rk45", 0, tolerance)
    assert (solved.state_NS - reference(start, end)).abs().max() < 50 * tolerance
    # about the work that scipy needs for the row that is driven fastest
    most = solve_ivp(
        lambda t, y: [y[1], math.cos(5 * t) - math.sin(y[0])], (start, end), STARTS[4], rtol=tolerance, atol=tolerance
    ).nfev
    assert solved.evaluations < 2 * most + 60


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4", "rk45"])
def test_evaluations_are_counted(solver):
    calls = 0

    def counted(state_NS: torch.Tensor, time: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return pendulum(state_NS, time, row_N)

    assert integrate(counted, STARTS, 0.0, 1.0, solver, 7, 1e-6).evaluations == calls


def test_a_row_is_solved_as_if_it_were_alone():
    """One hard row among many easy ones: an error averaged over the batch would hide it."""

    def stiff(state_NS: torch.Tensor, time: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
        return torch.where(row_N == 7, 30.0, 0.1)[:, None] * (time[:, None].cos() - state_NS)

    start = torch.zeros(500, 1, dtype=torch.float64)
    together = integrate(stiff, start, 0.0, 2.0, "rk45", 0, 1e-6)
    alone = integrate(lambda y, t, _: stiff(y, t, torch.tensor([7])), start[:1], 0.0, 2.0, "rk45", 0, 1e-6)
    assert torch.equal(together.state_NS[7:8], alone.state_NS)
    assert together.evaluations == alone.evaluations
    rate, end = 30.0, 2.0
    exact = rate * (rate * math.cos(end) + math.sin(end) - rate * math.exp(-rate * end)) / (rate**2 + 1)
    assert float(alone.state_NS) == pytest.approx(exact, abs=1e-5)


def test_a_tolerance_that_cannot_be_met_is_refused():
    def broken(state_NS: torch.Tensor, time: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
        return torch.where(time[:, None] > 0.5, torch.nan, state_NS)

    with pytest.raises(UserError, match=r"tolerance=1e-06.*rk4"):
        integrate(broken, STARTS, 0.0, 1.0, "rk45", 0, 1e-6)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_divergence_is_the_trace_of_the_jacobian(channels):
    torch.manual_seed(0)
    net = Denoiser(channels, channels, 4, width=16, depth=2, timesteps=0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, condition, time = torch.randn(6, channels), torch.randn(6, 16), 10 * torch.rand(6)
    value, divergence = with_divergence(lambda x, t, row: net(x, t, condition[row]), x, time, torch.arange(6))
    jacobian = vmap(jacrev(lambda x, t, c: net(x[None], t[None], c[None])[0]))(x, time, condition)
    torch.testing.assert_close(value, net(x, time, condition))
    torch.testing.assert_close(divergence, jacobian.diagonal(dim1=-2, dim2=-1).sum(-1), rtol=1e-5, atol=1e-5)
    assert divergence.abs().min() > 1e-3 and not divergence.requires_grad


def rotation_and_growth(x_NE: torch.Tensor, time: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
    """x' = A_n x, with A_n = rate_n I + a rotation: x(t) = exp(rate_n t) R(t) x(0)."""
    rate_N1 = (0.2 * (row_N + 1)).to(x_NE)[:, None]
    return rate_N1 * x_NE + torch.stack([-x_NE[:, 1], x_NE[:, 0]], 1)


@pytest.mark.parametrize("rows", [8192, 2])
@pytest.mark.parametrize("solver", ["heun", "rk4", "rk45"])
@pytest.mark.parametrize("start, end", [(1.0, 0.0), (0.0, 1.5)])
def test_the_log_density_of_a_linear_flow(solver, start, end, rows):
    """At ``end`` N(0, 1), so at ``start`` N(0, exp(2 rate (start - end))): in chunks or not, in either direction."""
    torch.manual_seed(0)
    x = torch.randn(5, 2)
    scoring = OdeScoring(solver=solver, steps=200, tolerance=1e-7)
    nats, _ = log_density(rotation_and_growth, x, start, end, scoring, rows)
    deviation = torch.exp(0.2 * torch.arange(1, 6, dtype=torch.float64) * (start - end))[:, None]
    wanted = torch.distributions.Normal(0.0, deviation).log_prob(x.double()).sum(1)
    torch.testing.assert_close(nats, wanted, rtol=0, atol=1e-3 if solver == "heun" else 2e-5)


def test_no_tokens_have_no_densities():
    assert log_density(rotation_and_growth, torch.zeros(0, 2), 1.0, 0.0, OdeScoring())[0].shape == (0,)


def test_scoring_options_hold_inside_the_block_and_unknown_ones_are_named():
    class Scored(Head):
        Scoring = OdeScoring

    head = Scored()
    head.scoring = OdeScoring()
    with pytest.raises(RuntimeError), replaced_options(head, "scoring", {"solver": "rk4", "steps": 9}):
        assert head.scoring == OdeScoring(solver="rk4", steps=9)
        raise RuntimeError
    assert head.scoring == OdeScoring()
    with pytest.raises(UserError, match=r"scoring option of Scored: 'tolerence'.*'tolerance'"), \
         replaced_options(head, "scoring", {"tolerence": 1e-3}):  # fmt: skip
        pass
    with pytest.raises(UserError, match="it has none"), replaced_options(Head(), "scoring", {"steps": 3}):
        pass
    for wrong in ({"steps": 0}, {"tolerance": 0.0}):
        with pytest.raises(UserError, match="tolerance"), replaced_options(head, "scoring", wrong):
            pass


def test_only_what_matters_is_quoted():
    assert OdeScoring().settings() == {"solver": "rk45", "tolerance": 1e-5}
    assert OdeScoring(solver="heun", steps=40).settings() == {"solver": "heun", "steps": 40}

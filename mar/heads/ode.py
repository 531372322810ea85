"""Ordinary differential equations of the continuous heads: deterministic samplers, and the log-density of a flow.

M tokens · N rows (one token each) · E token channels · S width of a state

Samplers: DDIM (Song et al. 2021a), DPM-Solver++ (Lu et al. 2022), UniPC (Zhao et al. 2023), Heun (Karras et al. 2022,
alg. 1). They receive eps only: diffusers' handling of a learned variance assumes images of three channels.

Densities: explicit Runge-Kutta methods (Hairer, Nørsett & Wanner 1993, chapter II). The adaptive pair is scipy's
Dormand-Prince 5(4), with a step size for each row: ``scipy.integrate.solve_ivp`` over a flattened batch would give all
rows one step size, chosen by the mean of their errors, and a token's density would depend on the other tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mar.core.devices import back, double
from mar.core.errors import UserError
from mar.heads.base import ScoringOptions
from mar.heads.diffusion_process import Process

DiffusionSolver = Literal["ddim", "dpm-solver++", "unipc", "heun"]


def solve(
    solver: DiffusionSolver, process: Process, noise_NE: Tensor, predict: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Return x_0_NE from standard normal ``noise_NE``, over the timesteps of ``process`` (Heun: most of them twice).

    States are float64: the first step divides by the signal, 5e-5 at the last timestep of the cosine chain.

    Args:
        predict: (x_t_NE float32, index of the timestep in ``process``) -> eps_NE.
    """
    scheduler = _scheduler(solver, process)  # a fresh scheduler: it keeps history between calls
    x_NE = double(noise_NE) * scheduler.init_noise_sigma
    for index in scheduler.timesteps:
        # Heun works on x_t / signal; its scheduler scales back to what the network was trained on, others do nothing.
        x_t_NE = back(scheduler.scale_model_input(x_NE, index).float(), noise_NE.device)
        eps_NE = double(predict(x_t_NE, int(index)))
        x_NE = scheduler.step(eps_NE, index, x_NE).prev_sample
    return back(x_NE.float(), noise_NE.device)


def _scheduler(solver: DiffusionSolver, process: Process) -> Any:
    from mar.core import torchvision  # noqa: F401, I001 - before diffusers
    import diffusers

    # The scheduler's training chain is our chain, so that a step is one of its timesteps: diffusers' own spacing is
    # wrong for DDIM where the number of steps does not divide the number of timesteps.
    betas = process.betas.numpy()
    common = {"num_train_timesteps": len(process), "trained_betas": betas, "timestep_spacing": "trailing"}
    if solver == "ddim":
        scheduler: Any = diffusers.DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True)
    elif solver == "dpm-solver++":
        scheduler = diffusers.DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++")
    elif solver == "unipc":
        scheduler = diffusers.UniPCMultistepScheduler(**common)
    elif solver == "heun":
        scheduler = diffusers.HeunDiscreteScheduler(**common)
    else:
        raise UserError(f"unknown solver {solver!r}: choose ancestral, ddim, dpm-solver++, unipc or heun")
    # diffusers keeps betas in float32, where 1 - beta loses the last of the signal: set its tables from ours
    signal, noise = process.table[:2]
    scheduler.alphas_cumprod, scheduler.alpha_t, scheduler.sigma_t = process.alpha_bar, signal, noise
    scheduler.lambda_t = signal.log() - noise.log()
    scheduler.set_timesteps(len(process))
    return scheduler


Solver = Literal["euler", "midpoint", "heun", "rk4", "rk45"]

# (state_NS, time of shape (N,) or (1,), row_N) -> d state / d time; row_N: which of all rows these are
Derivative = Callable[[Tensor, Tensor, Tensor], Tensor]

ROWS = 8192  # rows of one evaluation when scoring: bounds the memory
_FIRST_STEP = 1 / 50  # of the interval; the error control corrects it
_SMALLEST_STEP = 1e-7  # of the interval


@dataclass(frozen=True)
class OdeScoring(ScoringOptions):
    """How the differential equation of a log-density is solved."""

    solver: Literal["heun", "rk4", "rk45"] = "rk45"  # rk45 adapts its steps for each token
    steps: int = 100  # of heun and rk4, of equal length
    tolerance: float = 1e-5  # of rk45: error of one step, absolute and relative, of channels and nats

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.tolerance < 1:
            raise UserError(f"steps must be at least 1 and 0 < tolerance < 1: {self}")

    def settings(self) -> dict[str, Any]:
        """Return the settings to state beside a density."""
        accuracy = {"tolerance": self.tolerance} if self.solver == "rk45" else {"steps": self.steps}
        return {"solver": self.solver, **accuracy}


class Solution(NamedTuple):
    """The state at the end, and the evaluations of the derivative: the most for any row."""

    state_NS: Tensor
    evaluations: int


class Tableau(NamedTuple):
    """c, A and b of an explicit Runge-Kutta method; the weights of its error estimate, where it has one."""

    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    error: tuple[float, ...] = ()  # the last weight is that of the slope at the new state


_FIXED = {
    "euler": Tableau((0.0,), ((),), (1.0,)),
    "midpoint": Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": Tableau((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


@cache
def _dormand_prince() -> Tableau:
    from scipy.integrate import RK45

    stages = tuple(tuple(row[:index]) for index, row in enumerate(RK45.A.tolist()))
    return Tableau(tuple(RK45.C.tolist()), stages, tuple(RK45.B.tolist()), tuple(RK45.E.tolist()))


def integrate(
    derivative: Derivative, state_NS: Tensor, start: float, end: float, solver: Solver, steps: int, tol: float
) -> Solution:
    """Return the state at time ``end``, after or before ``start``, of every row with ``state_NS`` at ``start``.

    States and times are float64, whatever precision the derivative is evaluated in. ``steps`` have equal length and
    pass one time, shape (1,), for all rows; "rk45" meets ``tol`` instead, or raises UserError.
    """

    def exact(state_NS: Tensor, time: Tensor, row_N: Tensor) -> Tensor:
        return double(derivative(back(state_NS, device), back(time, device), row_N.to(device)))

    device, state_NS = state_NS.device, double(state_NS)
    if solver == "rk45":
        return _adaptive(exact, state_NS, start, end, tol)
    tableau, row_N = _FIXED[solver], torch.arange(len(state_NS), device=state_NS.device)
    length = state_NS.new_full((1,), (end - start) / steps)
    for index in range(steps):
        time = start + index * length
        state_NS, _ = _step(tableau, exact, state_NS, time, length, row_N, exact(state_NS, time, row_N))
    return Solution(state_NS, steps * len(tableau.nodes))


def log_density(
    velocity: Derivative, x_ME: Tensor, start: float, end: float, scoring: OdeScoring, rows: int = ROWS
) -> tuple[Tensor, int]:
    """Return nats_M (float64) and evaluations: log p(x) at time ``start`` of the flow that is N(0, 1) at time ``end``.

    log p_start(x(start)) = log N(x(end); 0, 1) + integral from start to end of div v(x(t), t) dt, the instantaneous
    change of variables (Chen et al. 2018, theorem 1; Song et al. 2021b, eq. 39), with the exact divergence.

    ``velocity``: (x_NE, time, row_N) -> v_NE of those rows of ``x_ME``, float32; each row a function of its own x.
    """
    device, parts, evaluations = x_ME.device, [double(x_ME[:0, 0])], 0
    for chunk_N in torch.arange(len(x_ME), device=x_ME.device).split(rows):

        def derivative(state_NS: Tensor, time: Tensor, row_N: Tensor, chunk_N=chunk_N):
            v_NE, divergence_N = with_divergence(velocity, state_NS[:, :-1].float(), time, chunk_N[row_N])
            return torch.cat([v_NE, divergence_N[:, None]], 1)

        begin_NS = torch.nn.functional.pad(x_ME[chunk_N], (0, 1))  # the last column gathers the divergence
        solved = integrate(derivative, begin_NS, start, end, scoring.solver, scoring.steps, scoring.tolerance)
        end_NE, gained_N = solved.state_NS[:, :-1], solved.state_NS[:, -1]
        prior_N = -0.5 * (end_NE.square().sum(1) + x_ME.shape[1] * math.log(2 * math.pi))
        parts.append(prior_N + gained_N)
        evaluations = max(evaluations, solved.evaluations)
    return back(torch.cat(parts), device), evaluations


def with_divergence(velocity: Derivative, x_NE: Tensor, time: Tensor, row_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return v_NE and its exact divergence_N: the trace of each row's Jacobian, from E backward passes over one graph.

    With 1, 4 and 16 channels on a CPU it costs 1.6, 3 and 6 times v alone; ``vmap(jacrev)`` 1.7, 4 and 7 times.
    """
    with torch.enable_grad():
        x_NE = x_NE.detach().requires_grad_()
        v_NE = velocity(x_NE, time, row_N)
        divergence_N = torch.zeros_like(x_NE[:, 0])
        for channel, v_N in enumerate(v_NE.unbind(1)):  # rows are independent: the sum's gradient is each row's own
            (gradient_NE,) = torch.autograd.grad(v_N.sum(), x_NE, retain_graph=channel + 1 < x_NE.shape[1])
            divergence_N = divergence_N + gradient_NE[:, channel]
    return v_NE.detach(), divergence_N


def _step(
    tableau: Tableau,
    derivative: Derivative,
    state_NS: Tensor,
    time: Tensor,
    length: Tensor,
    row_N: Tensor,
    slope_NS: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Return the state after one step, and the slope of each stage; ``slope_NS`` is the slope of the first."""
    slopes = [slope_NS]
    for node, row in zip(tableau.nodes[1:], tableau.stages[1:], strict=True):
        between_NS = state_NS + length[:, None] * _weighted(row, slopes)
        slopes.append(derivative(between_NS, time + node * length, row_N))
    return state_NS + length[:, None] * _weighted(tableau.weights, slopes), slopes


def _weighted(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    return sum((w * slope_NS for w, slope_NS in zip(weights, slopes, strict=True) if w), torch.zeros_like(slopes[0]))


def _adaptive(derivative: Derivative, state_NS: Tensor, start: float, end: float, tol: float) -> Solution:
    """Dormand and Prince's pair with local extrapolation; standard step control (Hairer et al. 1993, II.4)."""
    tableau, state_NS = _dormand_prince(), state_NS.clone()
    time_N = torch.full_like(state_NS[:, 0], start)
    length_N = torch.full_like(time_N, (end - start) * _FIRST_STEP)
    row_R = torch.arange(len(state_NS), device=state_NS.device)  # the unfinished rows
    slope_NS, evaluations = derivative(state_NS, time_N, row_R), 1
    while len(row_R):
        before_RS, time_R, length_R = state_NS[row_R], time_N[row_R], length_N[row_R]
        last_R = length_R.abs() >= (end - time_R).abs()
        length_R = torch.where(last_R, end - time_R, length_R)
        after_RS, slopes = _step(tableau, derivative, before_RS, time_R, length_R, row_R, slope_NS[row_R])
        slopes.append(derivative(after_RS, time_R + length_R, row_R))
        evaluations += len(tableau.nodes)
        error_RS = length_R[:, None] * _weighted(tableau.error, slopes)
        allowed_RS = tol * (1 + torch.maximum(before_RS.abs(), after_RS.abs()))
        error_R = (error_RS / allowed_RS).square().mean(1).sqrt().nan_to_num(nan=math.inf)
        kept_R = error_R <= 1
        factor_R = (0.9 * error_R.clamp(min=1e-10) ** -0.2).clamp(0.2, 10.0)
        length_N[row_R] = length_R * factor_R
        if bool((~kept_R & (length_N[row_R].abs() < abs(end - start) * _SMALLEST_STEP)).any()):
            raise UserError(f"the ODE cannot be solved to tolerance={tol:g}: choose a larger one, or solver=rk4")
        done_R = row_R[kept_R]
        state_NS[done_R], slope_NS[done_R] = after_RS[kept_R], slopes[-1][kept_R]
        time_N[done_R] = (time_R + length_R)[kept_R]
        row_R = row_R[~(kept_R & last_R)]
    return Solution(state_NS, evaluations)

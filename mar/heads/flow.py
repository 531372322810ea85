"""Flow-matching head: a token is carried from noise to data along a learned velocity.

M gathered tokens · N rows (a token at a time) · D context width · W network width · E token channels · R repeats

Lipman et al. 2023, "Flow matching for generative modeling"; Liu et al. 2023, "Flow straight and fast" (rectified flow).
With noise x_0, data x_1 and x_t = (1 - t) x_0 + t x_1, the network learns v(x_t, t) = E[x_1 - x_0 | x_t]; samples are
x(1) of dx / dt = v from x(0) ~ N(0, 1). The network is that of the diffusion head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mar.core.devices import back
from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.options import at_least, interval
from mar.core.tokens import Vectors
from mar.heads.base import Head, HeadOptions, LogProb, SamplingOptions, Scale, guided
from mar.heads.denoiser import Denoiser
from mar.heads.ode import Derivative, OdeScoring, Solver, integrate, log_density

# Times 0 to 1 as the network sees them: its fastest sinusoid turns 1.6 times. After a short training, densities within
# 1e-3 nats (root mean square) took 61 evaluations; with 1000, as images are often trained, 1,105, for no better a fit.
_TIME_SCALE = 10.0


@dataclass(frozen=True)
class FlowOptions(HeadOptions):
    width: int = 256
    depth: int = 3  # residual blocks
    repeats: int = 4  # times drawn for each token and iteration
    bounds: ClassVar = dict.fromkeys(("width", "depth", "repeats"), at_least(1))


@dataclass(frozen=True)
class FlowSampling(SamplingOptions):
    solver: Solver = "heun"  # evaluations a step: euler 1, midpoint and heun 2, rk4 4; rk45 as its tolerance needs
    steps: int = 50  # of equal length, for all but rk45
    tolerance: float = 1e-5  # of rk45: error of one step, absolute and relative
    guidance_interval: str = ""  # FROM-TO, the times 0 (noise) to 1 (data) that are guided; empty: all
    later: ClassVar = ("guidance_interval",)

    def __post_init__(self) -> None:
        if self.guidance_interval:
            interval(self.guidance_interval, "times", 1)
        if self.steps < 1 or not 0 < self.tolerance < 1:
            raise UserError(f"steps must be at least 1 and 0 < tolerance < 1: {self}")


class FlowHead(Head):
    Options = FlowOptions
    Sampling = FlowSampling
    Scoring = OdeScoring
    test_options: ClassVar[dict[str, Any]] = {"width": 16, "depth": 1}
    test_sampling: ClassVar[dict[str, Any]] = {"steps": 4}
    test_scoring: ClassVar[dict[str, Any]] = {"solver": "rk4", "steps": 20}
    decayed: ClassVar[bool] = False  # the network of the diffusion head, trained alike
    tokens = Vectors
    likelihoods = frozenset({"ode"})
    default_likelihood = "ode"

    token: Vectors
    sampling: FlowSampling
    scoring: OdeScoring

    def __init__(self, context_width: int, token: Vectors, options: FlowOptions) -> None:
        super().__init__()
        self.token, self.options = token, options
        self.sampling, self.scoring = FlowSampling(), OdeScoring()
        self.net = Denoiser(token.width, token.width, context_width, options.width, options.depth, timesteps=0)

    def compile_parts(self) -> None:
        self.net.compile(dynamic=True)  # any number of rows

    def loss(self, z_MD: Tensor, x_M: Tensor, noise: Noise) -> Tensor:
        """Return loss_M: squared error of the velocity (Lipman et al. 2023, eq. 23 with sigma_min 0), mean over
        channels and ``repeats`` times, each drawn uniformly, one from each of as many equal parts of [0, 1]."""
        count, repeats, channels = len(x_M), self.options.repeats, self.token.width
        part_R = torch.arange(repeats, device=x_M.device)
        t_N = ((part_R + noise.at("time").uniform(repeats)) / repeats).reshape(-1)
        x_0_NE = noise.at("start").normal(repeats * channels).reshape(-1, channels)
        x_1_NE = x_M.float().repeat_interleave(repeats, 0)
        x_t_NE = torch.lerp(x_0_NE, x_1_NE, t_N[:, None])
        v_NE = self.net(x_t_NE, _TIME_SCALE * t_N, self.net.cond_embed(z_MD).repeat_interleave(repeats, 0))
        return (v_NE - (x_1_NE - x_0_NE)).square().mean(-1).reshape(count, repeats).mean(1)

    @torch.no_grad()
    def log_prob(self, z_MD: Tensor, x_M: Tensor, kind: str, noise: Noise) -> LogProb:
        """ "ode": the log-density of the ODE's samples, as exact as ``scoring`` solves it, UserError if it cannot."""
        self.check_kind(kind)
        nats_M, evaluations = log_density(self.velocity(z_MD), x_M, 1.0, 0.0, self.scoring)
        return LogProb(nats_M.float(), "ode", evaluations, settings=self.scoring.settings())

    @torch.no_grad()
    def sample(
        self, z_MD: Tensor, noise: Noise, z_null_MD: Tensor | None = None, guidance_M: Scale = 1, temperature: float = 1
    ) -> Tensor:
        """Return x_ME. Temperature scales the start, ``noise.at("init")``; guidance acts on the velocity."""
        x_ME = temperature * noise.at("init").normal(self.token.width)
        velocity, by = self.velocity(z_MD, z_null_MD, guidance_M), self.sampling
        found_ME = integrate(velocity, x_ME, 0.0, 1.0, by.solver, by.steps, by.tolerance).state_NS
        return back(found_ME.float(), x_ME.device)

    def velocity(self, z_MD: Tensor, z_null_MD: Tensor | None = None, guidance_M: Scale = 1) -> Derivative:
        """Return (x_NE, time, row_N) -> v_NE of rows of ``z_MD``: one evaluation of 2N rows, or N without guidance.

        The context is projected here, once for all times.
        """
        condition_MW = self.net.cond_embed(z_MD)
        if z_null_MD is None or (isinstance(guidance_M, float | int) and guidance_M == 1.0):
            return lambda x_NE, t_N, row_N: self.net(x_NE.float(), _TIME_SCALE * t_N, condition_MW[row_N])
        null_MW, within = self.net.cond_embed(z_null_MD), self.sampling.guidance_interval
        low, high = interval(within, "times", 1) if within else (0.0, 1.0)

        def guided_velocity(x_NE: Tensor, t_N: Tensor, row_N: Tensor) -> Tensor:
            t_2N = t_N if len(t_N) == 1 else t_N.repeat(2)
            condition_2NW = torch.cat([condition_MW[row_N], null_MW[row_N]])
            v_NE, null_NE = self.net(x_NE.float().repeat(2, 1), _TIME_SCALE * t_2N, condition_2NW).chunk(2)
            scale_N = guidance_M[row_N] if isinstance(guidance_M, Tensor) else guidance_M
            if within:
                scale_N = torch.where((low <= t_N) & (t_N <= high), scale_N, 1.0)
            return guided(v_NE, null_NE, scale_N)

        return guided_velocity

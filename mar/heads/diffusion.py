"""Diffusion head: the distribution of a token is a small diffusion chain conditioned on its context.

M gathered tokens · N rows (a token at a timestep) · D context width · E token channels · R repeats · T timesteps

Li et al. 2024, "Autoregressive image generation without vector quantization". The network predicts the noise eps and
a learned range of variance (Nichol & Dhariwal 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.core.options import at_least, interval
from mar.core.tokens import Vectors
from mar.heads.base import Head, HeadOptions, LogProb, SamplingOptions, Scale, guided
from mar.heads.cuda_graph import CudaGraphCache
from mar.heads.denoiser import Denoiser
from mar.heads.diffusion_likelihood import DiffusionScoring, diffusion_log_density, log_density_bound
from mar.heads.diffusion_process import (
    LastTerm,
    NoiseSchedule,
    Process,
    respaced_timesteps,
    section_counts,
    spaced_timesteps,
)
from mar.heads.ode import solve


@dataclass(frozen=True)
class DiffusionOptions(HeadOptions):
    width: int = 256  # 1024 (base), 1280 (large), 1536 (huge) as published
    depth: int = 3  # residual blocks: 6, 8, 12 as published
    schedule: NoiseSchedule = "cosine"
    timesteps: int = 1000
    repeats: int = 4  # timesteps drawn for each token and iteration
    last_term: LastTerm = "gaussian"  # of the training bound; "discretised" as published, for 8-bit pixels in [-1, 1]
    bounds: ClassVar = dict.fromkeys(("width", "depth", "repeats"), at_least(1)) | {"timesteps": at_least(2)}


@dataclass(frozen=True)
class DiffusionSampling(SamplingOptions):
    """How the head samples, and over which chain its bound is taken."""

    solver: Literal["ancestral", "ddim", "dpm-solver++", "unipc", "heun"] = "ancestral"
    steps: int = 100
    final_steps: int = 0  # if not 0: steps falls linearly to this along the AR steps of a generation (DiSA)
    start: int = 0  # noisiest timestep of every chain; 0: the last with a signal (cosine's 992); published: 999
    timesteps: tuple[int, ...] = ()  # of the sampling chain, spelled out in place of steps and start
    bound_steps: int = 0  # timesteps of the chain that the bound describes; 0: all from the start
    respacing: str = ""  # of all timesteps, in place of steps and start: ddim50, or 10,15,20 (improved-diffusion)
    guidance_interval: str = ""  # FROM-TO, the timesteps that are guided; empty: all (Kynkäänniemi et al. 2024)
    later: ClassVar = ("respacing", "guidance_interval")

    def __post_init__(self) -> None:
        if self.respacing:
            section_counts(self.respacing)
            if self.timesteps or self.final_steps:
                raise UserError("respacing spells out the timesteps: leave out timesteps and final_steps")
        if self.guidance_interval:
            self.guides(0)
        if self.steps < 2 or min(self.bound_steps, self.final_steps) < 0 or 1 in (self.bound_steps, self.final_steps):
            raise UserError(f"steps must be at least 2, final_steps and bound_steps 0 (off) or at least 2: {self}")

    def guides(self, timestep: int) -> bool:
        """Return whether guidance acts at a timestep."""
        if not self.guidance_interval:
            return True
        low, high = interval(self.guidance_interval, "timesteps", 2**16)
        return low <= timestep <= high

    def at(self, progress: float) -> DiffusionSampling:
        """Later tokens are nearly decided by what is known: they need fewer steps (DiSA, Zhao et al. 2025)."""
        if not self.final_steps:
            return self
        return replace(self, steps=round(self.steps + progress * (self.final_steps - self.steps)), final_steps=0)


class Losses(NamedTuple):
    """Of each row: squared error of eps, mean over channels; the bound's term in bits/dim; their sum."""

    mse_N: Tensor
    vb_N: Tensor
    total_N: Tensor


class DiffusionHead(Head):
    Options = DiffusionOptions
    Sampling = DiffusionSampling
    Scoring = DiffusionScoring
    # narrow, and from a timestep with much signal: else weights at random multiply a token's scale by a hundred, the
    # next token's context with it, and samples overflow
    test_options: ClassVar[dict[str, Any]] = {"width": 4, "depth": 1, "timesteps": 4}
    test_sampling: ClassVar[dict[str, Any]] = {"steps": 3, "start": 2}
    test_scoring: ClassVar[dict[str, Any]] = {"solver": "rk4", "steps": 20}
    decayed: ClassVar[bool] = False  # as published (Li et al. 2024, the code)
    tokens = Vectors
    likelihoods = frozenset({"bound", "ode"})
    default_likelihood = "bound"

    token: Vectors
    sampling: DiffusionSampling
    scoring: DiffusionScoring

    def __init__(self, context_width: int, token: Vectors, options: DiffusionOptions) -> None:
        super().__init__()
        self.token, self.options = token, options
        sizes = (options.width, options.depth, options.timesteps)
        self.net = Denoiser(token.width, 2 * token.width, context_width, *sizes)
        self.process, self.cuda_graphs = Process(options.schedule, options.timesteps), CudaGraphCache()
        self.sampling = DiffusionSampling(steps=min(DiffusionSampling.steps, self.process.start + 1))
        self.scoring = DiffusionScoring()

    @property
    def start(self) -> int:
        """The noisiest timestep of every chain."""
        start = self.sampling.start or self.process.start
        if not 0 < start < len(self.process):
            raise UserError(f"a chain starts at a timestep in 1..{len(self.process) - 1}, not {start}")
        return start

    def chain(self, steps: int = 0, trailing: bool = False) -> Process:
        """Return the training chain up to the start (0 steps), or ``steps`` of its timesteps."""
        chosen = spaced_timesteps(self.start + 1, steps or self.start + 1, trailing)
        return Process(self.options.schedule, self.options.timesteps, chosen)

    def sampling_chain(self) -> Process:
        """Return the chain that ``sampling`` describes: published spacing for the ancestral sampler, else trailing."""
        if self.sampling.timesteps:
            return Process(self.options.schedule, self.options.timesteps, self.sampling.timesteps)
        if self.sampling.respacing:
            chosen = respaced_timesteps(self.options.timesteps, self.sampling.respacing)
            return Process(self.options.schedule, self.options.timesteps, chosen)
        return self.chain(self.sampling.steps, trailing=self.sampling.solver != "ancestral")

    def compile_parts(self) -> None:
        self.net.compile(dynamic=True)  # any number of rows

    # Training

    def loss(self, z_MD: Tensor, x_M: Tensor, noise: Noise) -> Tensor:
        """loss_M: mean over ``repeats`` uniformly drawn timesteps of ``Losses.total_N``."""
        count, repeats, channels = len(x_M), self.options.repeats, self.token.width
        uniform_MR = noise.at("timestep").uniform(repeats)
        t_N = (uniform_MR * self.options.timesteps).long().clamp(max=self.options.timesteps - 1).reshape(-1)
        eps_NE = noise.at("eps").normal(repeats * channels).reshape(-1, channels)
        condition_NW = self.net.cond_embed(z_MD).repeat_interleave(repeats, 0)
        losses = self.losses(condition_NW, x_M.float().repeat_interleave(repeats, 0), t_N, eps_NE)
        return losses.total_N.reshape(count, repeats).mean(1)

    def losses(self, condition_NW: Tensor, x_0_NE: Tensor, t_N: Tensor, eps_NE: Tensor) -> Losses:
        """The hybrid loss (Nichol & Dhariwal 2021, eq. 16, with the bound's weight 1): eps learns from its squared
        error alone, the variance from the bound, which sees eps detached. ``condition_NW`` is ``net.cond_embed(z)``.
        """
        x_t_NE = self.process.diffuse(x_0_NE, eps_NE, t_N)
        predicted_NE, range_NE = self.net(x_t_NE, t_N, condition_NW).chunk(2, dim=-1)
        term_NE = self.process.bound_terms(x_0_NE, eps_NE, predicted_NE.detach(), range_NE, t_N, self.options.last_term)
        mse_N = (predicted_NE - eps_NE).square().mean(-1)
        vb_N = term_NE.mean(-1) / math.log(2)
        return Losses(mse_N, vb_N, mse_N + vb_N)

    # Likelihood

    @torch.no_grad()
    def log_prob(self, z_MD: Tensor, x_M: Tensor, kind: str, noise: Noise) -> LogProb:
        """ "bound": E[nats] <= log p of the ancestral chain over ``sampling.bound_steps`` timesteps, with a Gaussian
        density as its last term; one draw of noise for each token and timestep, of all timesteps or of
        ``scoring.timesteps``. "ode": the log-density of the probability-flow ODE at ``scoring.t_min``; UserError where
        t_min or the tolerance cannot be met.
        """
        if self.check_kind(kind) == "ode":
            return self._ode(z_MD, x_M)
        process = self.chain(self.sampling.bound_steps)
        drawn = min(self.scoring.timesteps or len(process), len(process))
        nats_M = log_density_bound(self.net, process, z_MD, x_M, noise, drawn)
        settings = {"bound_steps": len(process), "timesteps": drawn}
        return LogProb(nats_M, "bound", drawn, estimate=True, settings=settings)

    def _ode(self, z_MD: Tensor, x_ME: Tensor) -> LogProb:
        condition_MW = self.net.cond_embed(z_MD)

        def predict(x_NE: Tensor, t_N: Tensor, row_N: Tensor) -> Tensor:
            return self.net(x_NE, t_N, condition_MW[row_N])[:, : self.token.width]

        nats_M, evaluations = diffusion_log_density(self.process, self.start, predict, x_ME, self.scoring)
        settings = {"t_min": self.scoring.t_min, **self.scoring.settings()}
        return LogProb(nats_M.float(), "ode", evaluations, settings=settings)

    # Sampling

    @torch.no_grad()
    def sample(
        self, z_MD: Tensor, noise: Noise, z_null_MD: Tensor | None = None, guidance_M: Scale = 1, temperature: float = 1
    ) -> Tensor:
        """Return x_ME. The start is ``noise.at("init")``, the step to index i - 1 takes ``noise.at("step", draw=i)``.

        Guidance acts on eps; the variance is the conditional one. Temperature scales the noise of the ancestral steps,
        never the start; deterministic solvers do not support it.
        """
        x_ME = noise.at("init").normal(self.token.width)
        process = self.sampling_chain()
        predict = self._predictor(process.timesteps, z_MD, z_null_MD, guidance_M)
        if self.sampling.solver != "ancestral":
            if temperature != 1.0:
                raise Unsupported(f"solver={self.sampling.solver} has no temperature: choose solver=ancestral, or 1")
            return solve(self.sampling.solver, process, x_ME, lambda x, index: predict(x, index)[0])
        draws = noise.at("step").normals(self.token.width, range(len(process) - 1, 0, -1))
        for index in reversed(range(len(process))):
            eps_ME, range_ME = predict(x_ME, index)
            draw_ME = next(draws) * temperature if index else None
            x_ME = process.step(x_ME, eps_ME, range_ME, index, draw_ME)
        return x_ME

    def _predictor(
        self, timesteps: list[int], z_MD: Tensor, z_null_MD: Tensor | None, guidance_M: Scale
    ) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
        """Return (x_ME, index of ``timesteps``) -> eps_ME, range_ME: one evaluation of 2M rows, of M without guidance.

        The context is projected here, once for all timesteps.
        """
        E, timestep_T = self.token.width, torch.tensor(timesteps, device=z_MD.device)

        def unguided() -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
            alone = self.cuda_graphs.bind(self.net, self.net.cond_embed(z_MD))
            return lambda x_ME, at: ((out := alone(x_ME, timestep_T[at : at + 1]))[:, :E], out[:, E:])

        if z_null_MD is None or (isinstance(guidance_M, float | int) and guidance_M == 1.0):
            return unguided()
        outside = unguided() if self.sampling.guidance_interval else None
        evaluate = self.cuda_graphs.bind(self.net, self.net.cond_embed(torch.cat([z_MD, z_null_MD])))

        def predict(x_ME: Tensor, index: int) -> tuple[Tensor, Tensor]:
            if outside is not None and not self.sampling.guides(timesteps[index]):
                return outside(x_ME, index)
            conditional, null = evaluate(torch.cat([x_ME, x_ME]), timestep_T[index : index + 1]).chunk(2)
            return guided(conditional[:, :E], null[:, :E], guidance_M), conditional[:, E:]

        return predict

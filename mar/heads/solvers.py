"""Deterministic solvers of the diffusion's ordinary differential equation, from diffusers, by name.

N rows (one token each) · E token channels

DDIM (Song et al. 2021a), DPM-Solver++ (Lu et al. 2022), UniPC (Zhao et al. 2023), Heun (Karras et al. 2022, alg. 1).
They are handed eps alone: diffusers' handling of a learned variance assumes images of three channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

from mar.errors import UserError
from mar.heads.diffusion_process import Process

Solver = Literal["ddim", "dpm-solver++", "unipc", "heun"]


def solve(
    solver: Solver,
    process: Process,
    noise_NE: torch.Tensor,
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """x_0_NE from standard normal ``noise_NE``, over the timesteps of ``process`` (Heun evaluates most of them twice).

    Args:
        predict: (x_t_NE, timestep of shape (1,)) -> eps_NE.
    """
    scheduler = _scheduler(solver, process)  # a fresh one: they keep history between calls
    scheduler.set_timesteps(len(process))
    timestep_T = torch.tensor(process.timesteps, device=noise_NE.device)
    x_NE = noise_NE * scheduler.init_noise_sigma
    for index in scheduler.timesteps:
        # Heun works on x_t / signal; its scheduler scales back to what the network was trained on, others do nothing.
        eps_NE = predict(scheduler.scale_model_input(x_NE, index), timestep_T[int(index)].reshape(1))
        x_NE = scheduler.step(eps_NE, index, x_NE).prev_sample
    return x_NE


def _scheduler(solver: Solver, process: Process) -> Any:
    from mar.compat import torchvision_repair  # noqa: F401, I001 - before diffusers
    import diffusers

    # The scheduler's training chain is our chain, so that a step is one of its timesteps: diffusers' own spacing is
    # wrong for DDIM where the number of steps does not divide the number of timesteps.
    common = {
        "num_train_timesteps": len(process),
        "trained_betas": process.betas.numpy(),
        "timestep_spacing": "trailing",
    }
    if solver == "ddim":
        return diffusers.DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True)
    if solver == "dpm-solver++":
        return diffusers.DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++")
    if solver == "unipc":
        return diffusers.UniPCMultistepScheduler(**common)
    if solver == "heun":
        return diffusers.HeunDiscreteScheduler(**common)
    raise UserError(f"unknown solver {solver!r}: choose ancestral, ddim, dpm-solver++, unipc or heun")

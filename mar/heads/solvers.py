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

Solver = Literal["ddim", "dpm-solver++", "unipc", "heun"]


def solve(
    solver: Solver,
    steps: int,
    beta_T: torch.Tensor,
    noise_NE: torch.Tensor,
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """x_0_NE from standard normal ``noise_NE``, in ``steps`` steps (Heun evaluates 2 steps - 1 times, others steps).

    Args:
        beta_T: betas of the training chain.
        predict: (x_t_NE, t, shape (1,)) -> eps_NE, in the training chain's timesteps and scaling of x_t.
    """
    scheduler = _scheduler(solver, beta_T)  # a fresh one: they keep history between calls
    scheduler.set_timesteps(steps, device=noise_NE.device)
    x_NE = noise_NE * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        # Heun works on x_t / signal; its scheduler scales back to what the network was trained on, others do nothing.
        eps_NE = predict(scheduler.scale_model_input(x_NE, t), t.reshape(1))
        x_NE = scheduler.step(eps_NE, t, x_NE).prev_sample
    return x_NE


def _scheduler(solver: Solver, beta_T: torch.Tensor) -> Any:
    from mar.compat import torchvision_repair  # noqa: F401, I001 - before diffusers
    import diffusers

    # "trailing" starts at the noisiest timestep and ends at x_0, whatever the number of steps.
    common = {
        "num_train_timesteps": len(beta_T),
        "trained_betas": beta_T.cpu().numpy(),
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

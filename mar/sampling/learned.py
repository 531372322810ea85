"""Generate along an order that the model's policy draws: a position from p_θ, then its token (LO-ARM, 2503.05979).

B batch · L tokens · M gathered tokens · K AR steps
"""

from __future__ import annotations

import torch

from mar.model import Model
from mar.noise import Noise
from mar.sampling.generate import Generation, OnStep, empty_tokens
from mar.sampling.guidance import Guidance
from orderings import Plan
from orderings.adaptive import smallest


@torch.no_grad()
def generate_by_policy(
    model: Model,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    guidance: Guidance,
    temperature: float,
    given: torch.Tensor | None,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Tokens drawn in ``plan.sizes()`` sets of positions, drawn from the policy without replacement.

    Sets of one are draws of the model whose bound is scored. The policy reads the contexts under the class alone:
    guidance and temperature change the tokens, never the choice of positions.
    """
    assert model.policy is not None, "checked by who reads the plan"
    token = empty_tokens(model, len(label_B), label_B.device) if given is None else given
    sizes = plan.sizes().unbind(1)
    run = Generation(model, label_B, noise, guidance, temperature, token, plan.step_BL, len(sizes))
    for step, size_B in enumerate(sizes):
        candidates_BL = run.unknown_BL & (size_B > 0)[:, None]
        z_MD, null_MD = run.contexts(candidates_BL)
        key_BL = model.policy.next_logits(z_MD, candidates_BL) + noise.at("position", draw=step).gumbel(token.shape[1])
        target_BL = smallest(-key_BL, candidates_BL, size_B)
        chosen_M = target_BL[candidates_BL]
        known_after_B = run.present_B - run.unknown_BL.sum(1) + size_B
        x_M = run.draw(z_MD[chosen_M], None if null_MD is None else null_MD[chosen_M], target_BL, known_after_B)
        run.accept(target_BL, x_M)
        if on_step is not None:
            on_step(step, run.token, target_BL)
    return run.token

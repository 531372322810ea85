"""Orders chosen from the model while it generates: entropy first, or MaskGIT's confidence.

B batch · L tokens · M gathered tokens · K AR steps
"""

from __future__ import annotations

import torch

from mar.model import Model
from mar.noise import Noise
from mar.sampling.generate import Generation, OnStep, empty_tokens
from mar.sampling.guidance import Guidance
from orderings import Plan, parse_adaptive


@torch.no_grad()
def generate_adaptively(
    model: Model,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    guidance: Guidance,
    temperature: float,
    given: torch.Tensor | None,
    rule: str,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Tokens drawn in ``plan.sizes()`` sets, each chosen among all unknown tokens by ``rule``.

    An entropy rule scores every unknown token by its conditional entropy. A confidence rule draws every unknown token
    and scores the log-probability of the draw (Chang et al. 2022, MaskGIT), then keeps the chosen draws: such an order
    looks at the values, so these samples have no tractable likelihood.

    Raises:
        UnknownName: no such rule (``"lowest-entropy"``, ``"confidence:4.5"``, …).
        Unsupported: the head has no entropy or no exact probability, or the examples end by themselves.
    """
    chooser = parse_adaptive(rule)
    model.tokenizer.check(torch.arange(plan.step_BL.shape[1]).flip(0)[None])  # any order may be found
    token = empty_tokens(model, len(label_B), label_B.device) if given is None else given
    size_BK = plan.sizes().to(label_B.device)
    run = Generation(model, label_B, noise, guidance, temperature, token, plan.step_BL, size_BK.shape[1])
    for step in range(size_BK.shape[1]):
        size_B = size_BK[:, step]
        known_after_B = run.present_B - run.unknown_BL.sum(1) + size_B
        candidates_BL = run.unknown_BL & (size_B > 0)[:, None]
        score_BL = torch.zeros(candidates_BL.shape, device=label_B.device)
        drawn = None
        if chooser.uses_sampled_values:
            drawn = run.sample(candidates_BL, known_after_B, purpose=f"step-{step}")  # a token may be drawn again later
            score_BL[candidates_BL] = run.log_prob(candidates_BL, drawn)
        else:
            score_BL[candidates_BL] = model.head.entropy(run.contexts(candidates_BL)[0])
        progress = (step + 1) / size_BK.shape[1]
        target_BL = chooser.next_set(score_BL, candidates_BL, size_B, progress, noise.at("adaptive", draw=step))
        x_M = run.sample(target_BL, known_after_B) if drawn is None else drawn[target_BL[candidates_BL]]
        run.accept(target_BL, x_M)
        if on_step is not None:
            on_step(step, run.token, target_BL)
    return run.token

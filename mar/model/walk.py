"""log p(x | plan) of what a sampler with reused features draws from: its own contexts, step by step.

B batch · L tokens · M gathered tokens
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mar.core.noise import Noise
from mar.model.model import Model
from orderings import ABSENT, GIVEN, Plan


@torch.no_grad()
def generated_log_prob(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str,
    on_rows: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """nats_BL: the log-probability of each token as a generation along ``plan`` that made it would have drawn it.

    Equal to ``token_log_prob`` where generation takes no short cuts.
    """
    network, embedded_BLD = model.network, model.embedding(token)
    state = network.begin(model.condition(label_B), plan.step_BL == ABSENT)
    state = network.observe(state, embedded_BLD, plan.step_BL == GIVEN)
    nats_BL = torch.zeros(plan.step_BL.shape, device=token.device)
    for step in range(int(plan.n_steps_B.max())):
        target_BL = plan.target(step)
        if not target_BL.any():
            continue
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        z_MD = network.query(state, target_BL)
        with torch.autocast(token.device.type, enabled=False):  # a network may run in bfloat16, never probabilities
            result = model.head.log_prob(z_MD.float(), token[target_BL], kind, noise.tokens(row_M, token_M))
        nats_BL[target_BL] = result.nats_M.float()
        state = network.observe(state, embedded_BLD, target_BL)
        if on_rows is not None:
            on_rows(int(target_BL.any(1).sum()))
    return nats_BL

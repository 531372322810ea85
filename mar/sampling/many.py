"""Any number of images under any plan, in batches: image k is a function of (seed, k) alone.

N images · B batch · L tokens · K AR steps
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mar.errors import UserError
from mar.sampling.generate import OnStep, generate
from mar.sampling.guidance import Guidance
from orderings import Plan

if TYPE_CHECKING:
    from mar.run import PlanLike, Run


def sample_many(
    run: Run,
    n: int,
    plan: PlanLike,
    label_N: torch.Tensor,
    guidance: Guidance,
    temperature: float,
    seed: int,
    batch_size: int,
    on_step: OnStep | None,
    given: torch.Tensor | None,
    mask: torch.Tensor | None,
    progress: Callable[[int, int], None] | None,
) -> torch.Tensor:
    """N examples in the data set's levels. See ``Run.sample`` for the arguments."""
    if (given is None) != (mask is None):
        raise UserError("inpainting wants both given images and a mask of the tokens to generate")
    out = []
    for start in range(0, n, batch_size):
        index = torch.arange(start, min(start + batch_size, n))
        noise = run.streams(seed, "sample", index)
        given_BL, token = _given(run, given, mask, index)
        rows = _rows(run, plan, index, noise, given_BL)
        label_B = label_N[index].to(run.device)
        token = generate(run.model, rows, label_B, noise.at("tokens"), guidance, temperature, token, on_step)
        out.append(run.model.tokenizer.decode(token).cpu())
        if progress is not None:
            progress(start + len(index), n)
    return torch.cat(out)


def _rows(run: Run, plan: PlanLike, index: torch.Tensor, noise, given_BL: torch.Tensor | None) -> Plan:
    if isinstance(plan, Plan):
        return plan.rows(index).to(run.device)
    return run.plan(plan, len(index), noise.at("order"), given_BL)


def _given(
    run: Run, given: torch.Tensor | None, mask: torch.Tensor | None, index: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """given_BL (bool) and the tokens of the given images."""
    if given is None or mask is None:
        return None, None
    if mask.numel() != len(run.grid):
        raise UserError(f"the mask has {mask.numel()} tokens, the grid {run.grid} has {len(run.grid)}")
    images = given.expand(len(index), *given.shape[-3:]) if given.ndim == 3 or len(given) == 1 else given[index]
    token = run.model.tokenizer.encode(images.to(run.device))
    given_BL = ~mask.reshape(1, -1).bool().expand(len(index), -1)
    return given_BL, token

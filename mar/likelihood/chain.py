"""log p(x | plan) token by token: the sum over steps and over the tokens of each set.

B batch · L tokens · M gathered tokens · R (image, step) pairs

    -log p(x | plan) = sum_k sum_{l in S_k} -log p(x_l | x_{S_<k})        (ARCHITECTURE: mathematics, point 3)

A one-pass network gives every conditional in one forward pass. Any other needs a pass for each step: those are batched
over (image, step) pairs, ordered by step, so that the device stays full and the pairs of a batch know about equally
many tokens; the number of pairs at a time follows from a memory budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from mar.core.errors import Unsupported
from mar.core.noise import Noise
from mar.core.tokens import Categories
from mar.likelihood.summary import Part
from mar.model.model import Model
from mar.model.walk import generated_log_prob
from orderings import Plan

# bytes of activations; on a CPU larger batches only leave its caches (8 x 8 digits: 1.2 times as slow at 128 MiB)
CPU_BUDGET = 2**25
GPU_BUDGET = 2**30
_NOTHING: dict[str, Any] = {"done": 0, "evaluations": 0, "estimate": False, "settings": {}}


@dataclass(frozen=True)
class TokenLogProb:
    """Log-probabilities of the tokens of a batch.

    Attributes:
        nats_BL: log p(x_l | x_{S_<k}) in nats; 0 where a token is given or absent.
        kind: "exact", "bound" or "ode".
        evaluations: evaluations of the head per token, the most for any.
        forward_rows: rows that went through the network.
        estimate: the head's log-probabilities depend on drawn noise (``LogProb.estimate``).
        settings: the head's, for these log-probabilities.
    """

    nats_BL: torch.Tensor
    kind: str
    evaluations: int
    forward_rows: int
    estimate: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def rows_in_budget(model: Model, budget: int) -> int:
    """How many rows at a time keep the activations of a forward pass (no gradients) within ``budget`` bytes.

    Counted in float32: the network's own (``row_floats``), and four of the vocabulary for each token.
    """
    n_tokens = 1
    for n in model.tokenizer.shape:
        n_tokens *= n
    token = model.tokenizer.token
    head = 4 * token.vocabulary if isinstance(token, Categories) else 0
    return max(1, budget // (4 * (model.network.row_floats(n_tokens) + n_tokens * head)))


@torch.no_grad()
def token_log_prob(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str | None = None,
    budget: int | None = None,
    on_rows: Callable[[int], None] | None = None,
    drawn_BK: torch.Tensor | None = None,
    part: Part | None = None,
) -> TokenLogProb:
    """Every conditional of ``plan`` for a batch of tokens, or those of the steps drawn.

    Args:
        model: in evaluation mode.
        token: (B, L) int64 or (B, L, E) float32.
        plan: one row for each row of ``token``, on its device.
        label_B: classes; negative: none.
        noise: one stream per row; read by stochastic bounds only.
        kind: one of the head's likelihoods; None: its default.
        budget: bytes of activations (``rows_in_budget``); None: 32 MiB on a CPU, 1 GiB elsewhere.
        on_rows: called with the number of (image, step) pairs just done, or found done.
        drawn_BK: bool, the steps to compute; None: all. The others' tokens keep 0 nats.
        part: where the work is kept as it is done, and taken up again.

    Raises:
        Unsupported: the head has no likelihood of this kind.
    """
    kind = model.head.check_kind(kind)
    if not model.network.sampling.exact:
        return _as_generated(model, token, plan, label_B, noise, kind, budget, on_rows, drawn_BK)
    image_R, step_R = _pairs(plan, model.network.one_pass, drawn_BK)
    target_BL = plan.scored_BL if drawn_BK is None else _of_steps(plan, drawn_BK)
    rows = rows_in_budget(model, budget or (CPU_BUDGET if token.device.type == "cpu" else GPU_BUDGET))
    if model.network.shares_plan and not bool((plan.step_BL == plan.step_BL[:1]).all()):
        rows = 1  # every row has its own plan
    kept, notes = (part.read() if part else None) or ({"nats_BL": torch.zeros(plan.step_BL.shape)}, dict(_NOTHING))
    nats_BL, condition_BC = kept["nats_BL"].to(token.device), model.condition(label_B)
    if on_rows is not None and notes["done"]:
        on_rows(notes["done"])
    for start in range(notes["done"], len(image_R), rows):
        image, step = image_R[start : start + rows], step_R[start : start + rows]
        step_RL, target_RL = plan.step_BL[image], target_BL[image]
        if not model.network.one_pass:
            target_RL = step_RL == step[:, None]
        z_MD = model.context(token[image], step_RL, condition_BC[image], target_RL)
        row_M, token_M = target_RL.nonzero(as_tuple=True)
        with torch.autocast(token.device.type, enabled=False):  # a network may run in bfloat16, probabilities never do
            streams = noise.tokens(image[row_M], token_M)
            result = model.head.log_prob(widened(z_MD), token[image][target_RL], kind, streams)
        nats_BL[image[row_M], token_M] = result.nats_M.float()
        notes = {
            "done": start + len(image),
            "evaluations": max(notes["evaluations"], result.evaluations),
            "estimate": result.estimate,
            "settings": result.settings,
        }
        if part is not None:
            part.keep({"nats_BL": nats_BL}, notes, last=notes["done"] == len(image_R))
        if on_rows is not None:
            on_rows(len(image))
    return TokenLogProb(nats_BL, kind, notes["evaluations"], len(image_R), notes["estimate"], notes["settings"])


def _as_generated(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str,
    budget: int | None,
    on_rows: Callable[[int], None] | None,
    drawn_BK: torch.Tensor | None,
) -> TokenLogProb:
    """The likelihood of a generation that takes short cuts: every step of every row, in batches that fit the budget."""
    if drawn_BK is not None or kind != "exact":
        raise Unsupported(f"reused features ({model.network.sampling}) want an exact likelihood of every step")
    rows = rows_in_budget(model, budget or (CPU_BUDGET if token.device.type == "cpu" else GPU_BUDGET))
    nats = [
        generated_log_prob(model, token[i], plan.rows(i), label_B[i], noise.rows(i), kind, on_rows)
        for i in torch.arange(len(token), device=token.device).split(rows)
    ]
    settings = asdict(model.network.sampling)
    return TokenLogProb(torch.cat(nats), kind, 1, int(plan.n_steps_B.sum()), False, settings)


def widened(z_MD: torch.Tensor) -> torch.Tensor:
    """Contexts in float32, where the network made them in less."""
    return z_MD.float() if z_MD.dtype in (torch.bfloat16, torch.float16) else z_MD


def n_pairs(plan: Plan, one_pass: bool, drawn_BK: torch.Tensor | None = None) -> int:
    """How many rows ``token_log_prob`` sends through the network."""
    if one_pass:
        return len(plan.step_BL)
    return int(plan.n_steps_B.sum() if drawn_BK is None else drawn_BK.sum())


def _pairs(plan: Plan, one_pass: bool, drawn_BK: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(image_R, step_R): every (drawn) step of every row, ordered by step; for a one-pass network one pair per row."""
    n_steps_B = plan.n_steps_B
    if one_pass:
        return torch.arange(len(n_steps_B), device=n_steps_B.device), torch.zeros_like(n_steps_B)
    if drawn_BK is None:
        drawn_BK = torch.arange(int(n_steps_B.max()), device=n_steps_B.device) < n_steps_B[:, None]
    step_R, image_R = drawn_BK.T.nonzero(as_tuple=True)
    return image_R, step_R


def _of_steps(plan: Plan, drawn_BK: torch.Tensor) -> torch.Tensor:
    """(B, L) bool: the scored tokens of the drawn steps."""
    return plan.scored_BL & drawn_BK.gather(1, plan.step_BL.clamp(0, drawn_BK.shape[1] - 1))

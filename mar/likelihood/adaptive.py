"""log p(x) along an order that the model itself chooses: lowest or highest entropy first, in single tokens or sets.

B batch · L tokens · M gathered tokens · K AR steps · D width

    S_k = rule(H(p(. | x_{S_<k}))),    -log p(x) = sum_k sum_{l in S_k} -log p(x_l | x_{S_<k})

The next set is a deterministic function of the tokens already known (ties by token number), so every image lies on one
path of a tree of decisions, and the product of conditionals along it is a normalised density (ARCHITECTURE:
mathematics, point 9): the sum over the last set's values is one, then that over the set before it, and so on. A rule
that looks at the values just drawn has no such tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mar.core.errors import Unsupported
from mar.core.noise import Noise
from mar.heads.base import LogProb
from mar.likelihood.chain import CPU_BUDGET, GPU_BUDGET, TokenLogProb, rows_in_budget, widened
from mar.model.model import Model
from orderings import ABSENT, GIVEN, Adaptive, Plan, inverse, name_of


@dataclass(frozen=True)
class Realised:
    """Log-probabilities along the orders that were found, and those orders as plans, ranks by token within a set."""

    result: TokenLogProb
    plan: Plan


@torch.no_grad()
def adaptive_log_prob(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    rule: Adaptive,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str | None = None,
    budget: int | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Realised:
    """Every conditional of a batch of tokens along the orders that ``rule`` finds for them.

    Networks are asked as the sampler asks them, with their caches, so that an image that was generated under this rule
    is scored along the order in which it was generated.

    Args:
        model: in evaluation mode.
        token: (B, L) int64 or (B, L, E) float32.
        plan: its set sizes, GIVEN and ABSENT tokens are read, not its order.
        budget: bytes of activations (``rows_in_budget``; the network's cache comes on top); None: 32 MiB on a CPU,
            1 GiB elsewhere.
        label_B, noise, kind, on_rows: as in ``chain.token_log_prob``.

    Raises:
        Unsupported: the rule looks at sampled values, the network does not serve every order, or the head has no
            tractable entropy or no likelihood ``kind``.
    """
    if rule.uses_sampled_values:
        raise Unsupported(
            f"{name_of(rule)} looks at the values just sampled, so it has no tractable likelihood: lowest-entropy and "
            "highest-entropy have one"
        )
    backwards_1L = torch.arange(token.shape[1], device=token.device).flip(0)[None]
    model.network.check(backwards_1L)  # an order that only networks refuse that refuse most
    kind = model.head.check_kind(kind)
    rows = rows_in_budget(model, budget or (CPU_BUDGET if token.device.type == "cpu" else GPU_BUDGET))
    rows = 1 if model.network.shares_plan else rows  # every image has its own order
    parts = [
        _follow(model, token[index], plan.rows(index), rule, label_B[index], noise.rows(index), kind, on_rows)
        for index in torch.arange(len(token), device=token.device).split(rows)
    ]
    step_BL = torch.cat([part.plan.step_BL for part in parts])
    result = replace(
        parts[0].result,
        nats_BL=torch.cat([part.result.nats_BL for part in parts]),
        evaluations=max(part.result.evaluations for part in parts),
        forward_rows=sum(part.result.forward_rows for part in parts),
    )
    return Realised(result, Plan(_ranks(step_BL), step_BL))


def _follow(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    rule: Adaptive,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str,
    on_rows: Callable[[int], None] | None,
) -> Realised:
    """The rows of one pass, step by step."""
    network, head = model.network, model.head
    embedded_BLD, unknown_BL, size_BK = model.embedding(token), plan.scored_BL, plan.sizes()
    state = network.begin(model.condition(label_B), plan.step_BL == ABSENT)
    state = network.observe(state, embedded_BLD, plan.step_BL == GIVEN)
    nats_BL = torch.zeros(unknown_BL.shape, device=token.device)
    step_BL, rows, scored = plan.step_BL.clone(), 0, LogProb(nats_BL.flatten()[:0], kind, 0)
    for step, size_B in enumerate(size_BK.unbind(1)):
        asked_BL = unknown_BL & (size_B > 0)[:, None]  # rows with fewer steps are done
        z_MD = widened(network.query(state, asked_BL))
        score_BL = torch.zeros_like(nats_BL)
        with torch.autocast(token.device.type, enabled=False):
            score_BL[asked_BL] = head.entropy(z_MD).float()
        target_BL = rule.next_set(score_BL, asked_BL, size_B, (step + 1) / size_BK.shape[1])
        streams = noise.tokens(*target_BL.nonzero(as_tuple=True))
        with torch.autocast(token.device.type, enabled=False):
            scored = head.log_prob(z_MD[target_BL[asked_BL]], token[target_BL], kind, streams)
        nats_BL[target_BL], step_BL[target_BL] = scored.nats_M.float(), step
        unknown_BL = unknown_BL & ~target_BL
        state = network.observe(state, embedded_BLD, target_BL)
        rows += (count := int((size_B > 0).sum()))
        if on_rows is not None:
            on_rows(count)
    result = TokenLogProb(nats_BL, kind, scored.evaluations, rows, scored.estimate, scored.settings)
    return Realised(result, Plan(_ranks(step_BL), step_BL))


def _ranks(step_BL: torch.Tensor) -> torch.Tensor:
    """rank_BL of the scored tokens, by step and then by token number; GIVEN and ABSENT stay."""
    place_BL = inverse(torch.argsort(step_BL, dim=1, stable=True))  # given tokens first, absent ones last
    rank_BL = place_BL - (step_BL == GIVEN).sum(1, keepdim=True)
    return torch.where((step_BL > GIVEN) & (step_BL < ABSENT), rank_BL, step_BL)

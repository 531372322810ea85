"""log p(x) along an order that the model itself chooses: lowest or highest entropy first, in single tokens or sets.

B batch · L tokens

    S_k = rule(H(p(. | x_{S_<k}))),    -log p(x) = sum_k sum_{l in S_k} -log p(x_l | x_{S_<k})

The next set is a deterministic function of the tokens already known (ties by token number), so every image lies on one
path of a tree of decisions, and the product of conditionals along it is a normalised density (ARCHITECTURE:
mathematics, point 9): the sum over the last set's values is one, then that over the set before it, and so on. A rule
that depends on the values just drawn has no such tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mar.core.errors import Unsupported
from mar.core.noise import Noise
from mar.likelihood.chain import OnRows, TokenLogProb, read_walks
from mar.model.model import Model
from mar.model.walk import by_entropy
from orderings import ABSENT, GIVEN, Adaptive, Plan, inverse, name_of


@dataclass(frozen=True)
class AdaptiveScore:
    """Log-probabilities along the orders that were found, and those orders as plans, ranks by token within a set."""

    result: TokenLogProb
    plan: Plan


def adaptive_log_prob(
    model: Model,
    token: torch.Tensor,
    plan: Plan,
    rule: Adaptive,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str | None = None,
    budget: int | None = None,
    on_rows: OnRows | None = None,
) -> AdaptiveScore:
    """Every conditional of a batch of tokens along the orders that ``rule`` finds for them.

    The walk is that of generation, so that an image generated under this rule is scored along its own order.

    Args:
        model: in evaluation mode.
        token: (B, L) int64 or (B, L, E) float32.
        plan: its set sizes, GIVEN and ABSENT tokens are read, not its order.
        label_B, noise, kind, budget, on_rows: as in ``chain.token_log_prob``.

    Raises:
        Unsupported: the rule depends on sampled values, the network does not serve every order, or the head has no
            tractable entropy or no likelihood ``kind``.
    """
    if rule.uses_sampled_values:
        raise Unsupported(
            f"{name_of(rule)} looks at the values just sampled, so it has no tractable likelihood: lowest-entropy and "
            "highest-entropy have one"
        )
    backwards_1L = torch.arange(token.shape[1], device=token.device).flip(0)[None]
    model.network.check(backwards_1L)  # only networks with a fixed order reject this one
    kind = model.head.check_kind(kind)

    result, step_BL = read_walks(
        model, token, plan, label_B, noise, kind, lambda rows: by_entropy(rule, rows.sizes()), budget, on_rows
    )
    return AdaptiveScore(result, Plan(_ranks(step_BL), step_BL))


def _ranks(step_BL: torch.Tensor) -> torch.Tensor:
    """rank_BL of the scored tokens, by step and then by token number; GIVEN and ABSENT stay."""
    place_BL = inverse(torch.argsort(step_BL, dim=1, stable=True))  # given tokens first, absent ones last
    rank_BL = place_BL - (step_BL == GIVEN).sum(1, keepdim=True)
    return torch.where((step_BL > GIVEN) & (step_BL < ABSENT), rank_BL, step_BL)

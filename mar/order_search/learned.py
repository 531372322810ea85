"""A learned order: the evidence bound of LO-ARM (Wang et al. 2025, arXiv 2503.05979), to train with and to score with.

B batch · L tokens · S orders drawn for an example · R = S·B rows · M gathered tokens

    log p(x) ≥ E_{σ~q(σ|x)} Σ_i [log p(x_{σ_i} | x_{σ_<i}) + log p_θ(σ_i | x_{σ_<i}) − log q_φ(σ_i | σ_<i, x)]

The networks of p_θ and q_φ are in ``mar/model/policy.py``.
"""

from __future__ import annotations

from typing import Any

import torch

from mar.core.errors import Unsupported
from mar.core.noise import Noise
from mar.likelihood.chain import OnRows, TokenLogProb, read_walks
from mar.model.model import Model
from mar.model.policy import OrderPolicy, draw_order, order_log_prob
from mar.model.walk import Chooser, Step, Walk, full_precision
from orderings import Plan

ORDERS = 2  # drawn for every example of a training batch: each is the baseline of the other, as in the paper


def policy_of(model: Model) -> OrderPolicy:
    """Return the model's order policy. Raise Unsupported if it was trained without one."""
    if model.policy is None:
        raise Unsupported("this model has no learned order: train one with ordering=learned")
    return model.policy


def negative_bound(
    model: Model, token: torch.Tensor, condition_BC: torch.Tensor, known_B: torch.Tensor, noise: Noise
) -> torch.Tensor:
    """Return loss_B, nats per token: −F of the step after ``known_B`` tokens, averaged over ``ORDERS`` prefixes from q.

        F(σ_<i, x) = Σ_{l ∉ σ_<i} q(l | σ_<i, x) [log p(x_l | x_{σ_<i}) + log p_θ(l | x_{σ_<i}) − log q(l | σ_<i, x)]

    is the bound's term of step i with the expectation over σ_i done exactly, so L times its mean over a uniform step
    is the bound. Its gradient is that of the expectation over prefixes: ∇F + F ∇log q(σ_<i | x), by REINFORCE with the
    mean of the other prefixes' F as the baseline (RLOO, Kool et al. 2019). The prefixes of an example share the noise
    of a stochastic head, which leaves both unbiased.

    Args:
        known_B: int64 in 0..L−1: how many tokens are known; uniform for an estimate of the bound.
        noise: one stream per row.
    """
    policy, n_tokens = policy_of(model), token.shape[1]
    logit_BL = policy.order_logits(token, condition_BC)
    rank_RL = torch.cat([draw_order(logit_BL, noise.at("posterior", s)) for s in range(ORDERS)])
    logit_RL = logit_BL.repeat(ORDERS, 1)
    known_R1 = known_B.repeat(ORDERS)[:, None]
    unknown_RL = rank_RL >= known_R1
    step_RL = torch.minimum(rank_RL, known_R1)  # in a one-pass network the order of the known tokens matters too
    row_M, token_M = unknown_RL.nonzero(as_tuple=True)
    repeated = token.repeat(ORDERS, *[1] * (token.ndim - 1))
    z_MD = model.context(repeated, step_RL, condition_BC.repeat(ORDERS, 1), unknown_RL)
    loss_M = model.head.loss(z_MD, repeated[unknown_RL], noise.tokens(row_M % len(token), token_M))

    log_p_M = policy.next_logits(z_MD, unknown_RL).log_softmax(1)[unknown_RL]
    log_q_M = logit_RL.masked_fill(~unknown_RL, -torch.inf).log_softmax(1)[unknown_RL]
    term_M = log_q_M.exp() * (log_p_M - log_q_M - loss_M.float())
    bound_R = torch.zeros_like(logit_RL[:, 0]).index_add(0, row_M, term_M)

    before_RI = torch.arange(n_tokens, device=token.device) < known_R1
    prefix_R = (order_log_prob(logit_RL, rank_RL) * before_RI).sum(1)
    return -_leave_one_out(bound_R.view(ORDERS, -1), prefix_R.view(ORDERS, -1)).mean(0)


def _leave_one_out(value_SB: torch.Tensor, log_q_SB: torch.Tensor) -> torch.Tensor:
    """Return ``value_SB``, whose gradient's mean over S estimates that of its expectation under q."""
    others_SB = (value_SB.sum(0) - value_SB) / (len(value_SB) - 1)
    advantage_SB = (value_SB - others_SB).detach()
    return value_SB + advantage_SB * (log_q_SB - log_q_SB.detach())  # adds zero, and the gradient of the score function


def find_learned(model: Model, token: torch.Tensor, plan: Plan, *asked: Any) -> tuple[TokenLogProb, Plan]:
    """``learned_log_prob`` as ``mar.likelihood.chain.conditionals`` asks for it: ``plan`` has singles.

    Raises:
        Unsupported: as ``learned_log_prob``; or the plan has sets of several tokens.
    """
    if int(plan.sizes().max()) > 1:
        raise Unsupported("the bound of a learned order is of one token at a time: score learned, without sets")
    return learned_log_prob(model, token, *asked)


@torch.no_grad()
def learned_log_prob(
    model: Model, token: torch.Tensor, label_B: torch.Tensor, noise: Noise, kind: str | None = None,
    budget: int | None = None, on_rows: OnRows = lambda rows: None,
) -> tuple[TokenLogProb, Plan]:  # fmt: skip
    """Return the bound along one order of each example, drawn from q, and those orders as plans.

    The sum over a row is an unbiased estimate of the bound. If q is the exact posterior, the sum is log p(x) for every
    order: therefore each step is taken at the σ_i that was drawn and not averaged over σ_i as in training. Arguments:
    as in ``mar.likelihood.chain.token_log_prob``.

    Raises:
        Unsupported: the model has no policy, or another kind of likelihood than "bound" is asked for.
    """
    if kind not in (None, "bound"):
        raise Unsupported(
            f"a learned order has a likelihood of kind bound, not {kind}: the exact one sums over all orders"
        )
    condition_BC = model.condition(label_B)
    logit_BL = policy_of(model).order_logits(token, condition_BC)
    rank_BL = draw_order(logit_BL, noise.at("posterior"))
    joint_BL, evaluations = joint_log_prob(model, token, rank_BL, label_B, noise, budget, on_rows)
    nats_BL = joint_BL - order_log_prob(logit_BL, rank_BL).gather(1, rank_BL)
    return TokenLogProb(nats_BL, "bound", evaluations, rank_BL.numel(), estimate=True), Plan(rank_BL, rank_BL)


@torch.no_grad()
def joint_log_prob(
    model: Model, token: torch.Tensor, rank_BL: torch.Tensor, label_B: torch.Tensor, noise: Noise,
    budget: int | None = None, on_rows: OnRows = lambda rows: None,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """Return nats_BL, log p(x_{σ_i} | x_{σ_<i}) + log p_θ(σ_i | x_{σ_<i}) at each token, and the head's evaluations.

    The sum over a row is log p(x, σ). The walk is that of generation by the policy.
    """
    policy, order_nats = policy_of(model), []

    def given_order(rows: Plan) -> Chooser:
        nats_BL = torch.zeros(rows.rank_BL.shape, device=token.device)
        order_nats.append(nats_BL)

        def choose(walk: Walk, number: int) -> Step:
            step, target_BL = walk.query(number, walk.unknown_BL), rows.target(number)
            with full_precision(step.z_MD) as z_MD:
                log_p_BL = policy.next_logits(z_MD, step.target_BL).log_softmax(1)
            nats_BL[target_BL] = log_p_BL[target_BL]
            return walk.narrowed(step, target_BL)

        return choose

    plan, kind = Plan(rank_BL, rank_BL), model.head.check_kind(None)
    found, _ = read_walks(model, token, plan, label_B, noise, kind, given_order, budget, on_rows)
    return found.nats_BL + torch.cat(order_nats), found.evaluations

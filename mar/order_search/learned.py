"""A learned order: the evidence bound of LO-ARM (Wang et al. 2025, arXiv 2503.05979), to train with and to score with.

B batch · L tokens · S orders drawn for an example · R = S·B rows · M gathered tokens

    log p(x) ≥ E_{σ~q(σ|x)} Σ_i [log p(x_{σ_i} | x_{σ_<i}) + log p_θ(σ_i | x_{σ_<i}) − log q_φ(σ_i | σ_<i, x)]

The networks behind p_θ and q_φ are in ``policy.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise, stream
from mar.likelihood.chain import CPU_BUDGET, GPU_BUDGET, TokenLogProb, rows_in_budget, widened
from mar.likelihood.summary import Likelihood, summarise
from mar.model.model import Model
from mar.model.policy import OrderPolicy, draw_order, order_log_prob
from orderings import Grid, Plan, PlanSpec
from orderings.partitions import Singles

_IMAGES = 256  # scored at a time; the memory budget cuts these further
ORDERS = 2  # drawn for every example of a training batch: each is the baseline of the other, as in the paper


def policy_of(model: Model) -> OrderPolicy:
    """The model's order policy.

    Raises:
        Unsupported: it was trained without one.
    """
    if model.policy is None:
        raise Unsupported("this model has no learned order: train one with ordering=learned")
    return model.policy


def negative_bound(
    model: Model, token: torch.Tensor, condition_BC: torch.Tensor, known_B: torch.Tensor, noise: Noise
) -> torch.Tensor:
    """loss_B, in nats per token: −F of the step after ``known_B`` tokens, averaged over ``ORDERS`` prefixes from q.

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
    """``value_SB``, whose gradient's mean over S estimates that of its expectation under q."""
    others_SB = (value_SB.sum(0) - value_SB) / (len(value_SB) - 1)
    advantage_SB = (value_SB - others_SB).detach()
    return value_SB + advantage_SB * (log_q_SB - log_q_SB.detach())  # adds zero, and the gradient of the score function


def score_learned(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    plan: str = "learned",
    seed: int = 0,
    kind: str | None = None,
    budget: int | None = None,
    warnings: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
    repeat: int = 0,
    dequantisation: int = 0,
) -> Likelihood:
    """The bound of ``images`` (N, C, H, W), in the data set's levels, under the model's learned order.

    One order of each image is drawn from the posterior, a function of (seed, image, ``repeat``) alone; the standard
    error covers images and orders. Arguments, and what is the same in every plan of a seed: as in
    ``mar.likelihood.score.conditionals``.

    Raises:
        Unsupported: as ``learned_log_prob``; or the plan has sets of several tokens.
    """
    if PlanSpec.parse(plan)[1] != Singles():
        raise Unsupported(f"the bound of a learned order is of one token at a time: score learned, not {plan}")
    if len(images) == 0:
        raise UserError("no images to score")
    device = next(model.parameters()).device
    labels = torch.full((len(images),), -1) if labels is None else labels
    total, done = len(images) * len(Grid(model.tokenizer.shape)), 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    results = []
    for index in torch.arange(len(images)).split(_IMAGES):
        noise = stream(seed, "nll", index, device)
        token = model.tokenizer.encode(images[index].to(device), noise.at("dequantise", dequantisation))
        here = noise.at(f"repeat {repeat}") if repeat else noise
        results.append(learned_log_prob(model, token, labels[index].to(device), here.at("head"), kind, budget, advance))
    return summarise(
        model, plan, torch.cat([orders.step_BL for _, orders in results]),
        -torch.cat([found.nats_BL for found, _ in results]), "bound", max(r.evaluations for r, _ in results), total,
        warnings, head_estimate=True,
    )  # fmt: skip


@torch.no_grad()
def learned_log_prob(
    model: Model,
    token: torch.Tensor,
    label_B: torch.Tensor,
    noise: Noise,
    kind: str | None = None,
    budget: int | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> tuple[TokenLogProb, Plan]:
    """The bound along one order an example, drawn from q, and those orders as plans.

    The sum over a row is an unbiased estimate of the bound. Where q is the exact posterior it is log p(x) for every
    order, which is why each step is taken at the σ_i that was drawn and not averaged over σ_i as in training.

    Args:
        model: in evaluation mode.
        token: (B, L) int64 or (B, L, E) float32.
        label_B: classes; negative: none.
        noise: one stream per row.
        kind: None or "bound".
        budget: bytes of activations (``rows_in_budget``); None: 32 MiB on a CPU, 1 GiB elsewhere.
        on_rows: called with the number of (image, step) pairs just done.

    Raises:
        Unsupported: the model has no policy, or another kind of likelihood is asked for.
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
    return TokenLogProb(nats_BL, "bound", evaluations, rank_BL.numel()), Plan(rank_BL, rank_BL)


@torch.no_grad()
def joint_log_prob(
    model: Model,
    token: torch.Tensor,
    rank_BL: torch.Tensor,
    label_B: torch.Tensor,
    noise: Noise,
    budget: int | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> tuple[torch.Tensor, int]:
    """nats_BL: log p(x_{σ_i} | x_{σ_<i}) + log p_θ(σ_i | x_{σ_<i}), each at its token, and the head's evaluations.

    The sum over a row is log p(x, σ). Networks are asked as the sampler asks them, with their caches.
    """
    head = model.head
    kind = head.check_kind(None)
    rows = rows_in_budget(model, budget or (CPU_BUDGET if token.device.type == "cpu" else GPU_BUDGET))
    parts, evaluations = [], 1
    for index in torch.arange(len(token), device=token.device).split(rows):
        x, rank, here = token[index], rank_BL[index], noise.rows(index)
        embedded_BLD, nats = model.embedding(x), torch.zeros(rank.shape, device=token.device)
        state = model.network.begin(model.condition(label_B[index]), torch.zeros_like(rank, dtype=torch.bool))
        state = model.network.observe(state, embedded_BLD, rank < 0)
        for step in range(rank.shape[1]):
            unknown_BL, target_BL = rank >= step, rank == step
            z_MD = widened(model.network.query(state, unknown_BL))
            streams = here.tokens(*target_BL.nonzero(as_tuple=True))
            with torch.autocast(token.device.type, enabled=False):  # a network may run in bfloat16, never probabilities
                log_p_BL = policy_of(model).next_logits(z_MD, unknown_BL).log_softmax(1)
                scored = head.log_prob(z_MD[target_BL[unknown_BL]], x[target_BL], kind, streams)
            nats[target_BL] = scored.nats_M.float() + log_p_BL[target_BL]
            evaluations = scored.evaluations
            state = model.network.observe(state, embedded_BLD, target_BL)
            if on_rows is not None:
                on_rows(len(index))
        parts.append(nats)
    return torch.cat(parts), evaluations

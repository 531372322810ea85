"""Exposure bias: what each step costs on data, beside what it costs on what the model itself generated before it.

N images · L tokens · K AR steps · B batch

In training every token is predicted after tokens of the data; in generation, after the model's own. If the two kinds of
past differ, so does what the model expects next (Bengio et al. 2015, arXiv 1506.03099; Ranzato et al. 2016, arXiv
1511.06732). Both are scored here under the same plans, classes and noise:

    data_k = E_{x ~ data}  sum_{l in S_k} -log p(x_l | x_{S_<k})
    own_k  = E_{x ~ model} sum_{l in S_k} -log p(x_l | x_{S_<k})

The difference holds two things. With h_k(past) the model's entropy at step k, what it expects its own token to cost,

    own_k - data_k = (E_own h_k - E_data h_k) - (data_k - E_data h_k) = exposure_k - misfit_k

misfit: after the data's past, the data are harder to predict than the model believes; exposure: the model believes
something else because the past is its own. A perfect model has neither. Entropies are the head's where it has them,
otherwise estimated by another draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.core.progress import Progress
from mar.heads.base import Head
from mar.likelihood.chain import DrawPlan, ImageBatch, OnRows, counter, image_batches, n_pairs, pairs
from mar.model.model import Model
from orderings import Plan

Generate = Callable[[Plan, torch.Tensor, Noise], torch.Tensor]  # plans, classes, one stream a row -> tokens


@dataclass(frozen=True)
class Curve:
    """(K,) means over images of the nats of each step, and their standard errors."""

    nats: tuple[float, ...]
    standard_error: tuple[float, ...]


@dataclass(frozen=True)
class Exposure:
    """Nats of each step on data and on the model's own samples, without a scaling's Jacobian, and their difference."""

    plan: str  # short text
    kind: str  # of the log-probabilities: "exact", "bound" or "ode"
    n_images: int  # of the data, and as many samples
    tokens_per_step: tuple[float, ...]  # (K,) means
    data: Curve  # NLL of the data
    own: Curve  # NLL of the samples
    expected_after_data: Curve  # the model's entropy after the data's past
    expected_after_own: Curve
    difference: Curve  # own minus data
    misfit: Curve  # data minus expected_after_data
    exposure: Curve  # expected_after_own minus expected_after_data
    misfit_summed: Curve  # over steps 0..k
    exposure_summed: Curve


def exposure(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    draw_plan: DrawPlan,
    generate: Generate,
    plan: str,
    seed: int = 0,
    kind: str | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
) -> Exposure:
    """Score ``images`` (N, C, H, W), in the data set's levels, and as many samples of the same plans and classes.

    Image k has the plan and noise that ``score`` gives example k for the same seed; sample k has its plan and class,
    and is scored as the tokens that were generated, never decoded. Standard errors of differences are over pairs.

    Args:
        generate: draws tokens at guidance 1, temperature 1 and without truncation, as likelihoods mean.
        plan: the plan's short text.
        progress: called with (rows done, rows in all); generation counts as one pass a step.
        labels, draw_plan, seed, kind, budget: as in ``mar.likelihood.chain.conditionals``.

    Raises:
        UserError: fewer than two images.
        Unsupported: the head has no likelihood of this kind.
    """
    if len(images) < 2:
        raise UserError(f"exposure bias wants at least 2 images, not {len(images)}")
    model.tokenizer.require_one_length("exposure bias")
    kind, batches = model.head.check_kind(kind), list(image_batches(model, images, labels, seed))
    plans = [draw_plan(batch.noise.at("order")) for batch in batches]
    count = counter(progress, sum(n_pairs(p, False) + 2 * n_pairs(p, model.network.one_pass) for p in plans))
    data, own = [], []
    for batch, rows in zip(batches, plans, strict=True):
        data.append(_costs(model, batch.tokens(model), rows, batch, kind, budget, count))
        drawn = generate(rows, batch.label_B, batch.noise.at("own"))
        count(n_pairs(rows, False))
        own.append(_costs(model, drawn, rows, batch, kind, budget, count))
    step_NL = torch.cat([p.step_BL for p in plans])
    return _compare(plan, kind, step_NL, torch.cat(data, dim=1), torch.cat(own, dim=1))


@torch.no_grad()
def _costs(
    model: Model, token: torch.Tensor, plan: Plan, batch: ImageBatch, kind: str, budget: int | None, on_rows: OnRows
) -> torch.Tensor:
    """(2, B, L): each token's NLL, and the model's expectation of it."""
    nats_2BL, noise = torch.zeros(2, *plan.step_BL.shape, device=token.device), batch.noise.at("head")
    for some in pairs(model, token, plan, batch.label_B, budget):
        image_M, token_M = some.at_M
        streams, x_M = noise.tokens(image_M, token_M), token[image_M, token_M]
        nats_2BL[0, image_M, token_M] = -model.head.log_prob(some.z_MD, x_M, kind, streams).nats_M.float()
        nats_2BL[1, image_M, token_M] = _expected(model.head, some.z_MD, kind, streams).float()
        on_rows(len(some.image_R))
    return nats_2BL


def _expected(head: Head, z_MD: torch.Tensor, kind: str, noise: Noise) -> torch.Tensor:
    """nats_M: the entropy of each token's distribution, or the NLL of one draw from it."""
    try:
        return head.entropy(z_MD)
    except Unsupported:
        return -head.log_prob(z_MD, head.sample(z_MD, noise.at("another")), kind, noise).nats_M


def _compare(plan: str, kind: str, step_NL: torch.Tensor, data_2NL: torch.Tensor, own_2NL: torch.Tensor) -> Exposure:
    rows = Plan(step_NL, step_NL)
    n_steps, scored_NL = int(rows.n_steps_B.max()), rows.scored_BL
    index_NL = torch.where(scored_NL, step_NL, n_steps)

    def per_step(value_NL: torch.Tensor) -> torch.Tensor:
        zeros_NK = torch.zeros(len(step_NL), n_steps + 1, dtype=torch.float64)
        return zeros_NK.scatter_add_(1, index_NL.cpu(), value_NL.cpu().double())[:, :n_steps]

    def curve(value_NK: torch.Tensor) -> Curve:
        error_K = value_NK.std(0) / math.sqrt(len(value_NK))
        return Curve(tuple(value_NK.mean(0).tolist()), tuple(error_K.tolist()))

    data_NK, after_data_NK = map(per_step, data_2NL)
    own_NK, after_own_NK = map(per_step, own_2NL)
    misfit_NK, exposure_NK = data_NK - after_data_NK, after_own_NK - after_data_NK
    tokens_K = tuple(per_step(scored_NL).mean(0).tolist())
    curves = (data_NK, own_NK, after_data_NK, after_own_NK, own_NK - data_NK, misfit_NK, exposure_NK)
    summed = (misfit_NK.cumsum(1), exposure_NK.cumsum(1))
    return Exposure(plan, kind, len(step_NL), tokens_K, *map(curve, (*curves, *summed)))

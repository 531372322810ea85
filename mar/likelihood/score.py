"""The likelihood of images along plans drawn before the first conditional is asked for.

N images · L tokens · K AR steps
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mar.core.errors import Unsupported
from mar.core.noise import Noise
from mar.core.progress import Counter, Progress
from mar.core.records import Partial
from mar.likelihood.chain import ImageBatch, TokenLogProb, adaptive_log_prob, image_batches, n_pairs, token_log_prob
from mar.likelihood.estimate import EVERY_STEP, Estimator
from mar.likelihood.summary import Conditionals, Likelihood, summarise
from mar.model.model import Model
from orderings import Adaptive, Plan

DrawPlan = Callable[[Noise], Plan]  # one plan for each stream, the same for the same key


@dataclass(frozen=True, repr=False)
class TokenScores:
    """Log-probabilities of every token of N examples along a plan.

    Attributes:
        plan: short text.
        kind: "exact"; "bound": at most log p, in expectation; "ode".
        nats_NL: log p(x_l | x_{S_<k}) of each token in nats; 0 where it is given or absent. Of the tokens: densities of
            continuous ones are without the Jacobian that a Likelihood includes.
        step_NL: the AR step of each token (GIVEN, 0.., ABSENT).
        position_LD: the place of each token on the grid, (row, column) of an image.
    """

    plan: str
    kind: str
    nats_NL: torch.Tensor
    step_NL: torch.Tensor
    position_LD: torch.Tensor

    def __repr__(self) -> str:
        n, length = self.nats_NL.shape
        nats = float(self.nats_NL.sum(1).mean())
        return f"TokenScores({self.plan}, {self.kind}: {n} examples of {length} tokens, {nats:.2f} nats each)"


def conditionals(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    draw_plan: DrawPlan,
    seed: int = 0,
    kind: str | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
    estimator: Estimator = EVERY_STEP,
    repeat: int = 0,
    dequantisation: int = 0,
    partial: Partial | None = None,
    name: str = "images",
    rule: Adaptive | None = None,
) -> Conditionals:
    """The conditionals of ``images`` (N, C, H, W), in the data set's levels, along plans.

    The plan of image k, its steps drawn, its dequantisation and the noise of a bound are functions of (seed, k) and the
    two numbers below alone, so two plans scored with one seed are compared on the same images, noise and steps.

    Args:
        draw_plan: from one stream per image, their plans.
        kind: one of the head's likelihoods; None: its default.
        budget: bytes of activations; None: what suits the device.
        progress: called with (rows done, rows in all).
        estimator: which steps are computed.
        repeat: which independent draw of orders, steps and noise.
        dequantisation: which independent draw of it.
        partial: where finished work is kept, under ``name-…``, and taken up again.
        rule: finds each image's order from the model; of the plans that are drawn, the set sizes count alone.

    Raises:
        UserError: there are no images.
        Unsupported: the head has no likelihood of this kind; or sub-sampled steps of an order found along the way.
    """
    if rule is not None and estimator != EVERY_STEP:
        raise Unsupported("an order found along the way needs every step before the one drawn: use --estimator exact")
    batches = list(image_batches(model, images, labels, seed))
    drawn = [_draw(model, batch, draw_plan, estimator, repeat) for batch in batches]
    one_pass = model.network.one_pass and rule is None
    count = Counter(progress, sum(n_pairs(plan, one_pass, drawn_BK) for plan, drawn_BK, _ in drawn))
    steps, results = [], []
    for k, (batch, (plan, drawn_BK, _)) in enumerate(zip(batches, drawn, strict=True)):
        token, step_BL = batch.tokens(model, dequantisation), plan.step_BL
        part = partial.part(f"{name}-{k:05d}") if partial else None
        asked = (batch.label_B, batch.repeated(repeat).at("head"), kind, budget, count)
        if rule is None:
            result = token_log_prob(model, token, plan, *asked, drawn_BK, part)
        elif part and (kept := part.read()):  # an order found along the way is kept when all of it is found
            result, step_BL = TokenLogProb(kept[0]["nats_BL"].to(token.device), **kept[1]), kept[0]["step_BL"]
            count(result.forward_rows)
        else:
            result, found = adaptive_log_prob(model, token, plan, rule, *asked)
            step_BL = found.step_BL
            if part:
                notes = {key: value for key, value in vars(result).items() if key != "nats_BL"}
                part.write({"nats_BL": result.nats_BL, "step_BL": step_BL}, notes)
        results.append(result)
        steps.append(step_BL.cpu())
    weights = [weight_BL for _, _, weight_BL in drawn if weight_BL is not None]
    return Conditionals(
        torch.cat(steps),
        -torch.cat([r.nats_BL for r in results]).double().cpu(),
        results[0].kind,
        max(r.evaluations for r in results),
        sum(r.forward_rows for r in results),
        results[0].estimate,
        results[0].settings,
        torch.cat(weights).cpu() if weights else None,
        str(estimator) if weights else "exact",
    )


def score(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    draw_plan: DrawPlan,
    plan: str,
    seed: int = 0,
    warnings: tuple[str, ...] = (),
    **options: Any,
) -> Likelihood:
    """The likelihood of ``images`` (N, C, H, W) along plans. ``options``: the others of ``conditionals``."""
    return summarise(model, plan, conditionals(model, images, labels, draw_plan, seed, **options), warnings)


def _draw(
    model: Model, batch: ImageBatch, draw_plan: DrawPlan, estimator: Estimator, repeat: int
) -> tuple[Plan, torch.Tensor | None, torch.Tensor | None]:
    """(plan, drawn_BK, weight_BL): the plans of some images, and the steps drawn if not all are."""
    noise, tokenizer = batch.repeated(repeat), model.tokenizer
    plan = draw_plan(noise.at("order"))
    if tokenizer.end is not None:  # examples that end by themselves
        plan = plan.shortened(tokenizer.absent(tokenizer.encode(batch.x.to(batch.label_B.device))))
    weight_BK = estimator.weights(plan.n_steps_B, noise.at("steps"))
    if weight_BK is None:
        return plan, None, None
    weight_BL = weight_BK.gather(1, plan.step_BL.clamp(0, weight_BK.shape[1] - 1))
    return plan, weight_BK > 0, weight_BL

"""The likelihood of images along plans drawn before the first conditional is asked for.

N images · L tokens · K AR steps
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.core.progress import Counter, Progress
from mar.core.records import Part, Partial
from mar.likelihood.adaptive import adaptive_log_prob
from mar.likelihood.chain import ImageBatch, TokenLogProb, image_batches, n_pairs, token_log_prob
from mar.likelihood.estimate import EVERY_STEP, Estimator
from mar.likelihood.summary import Likelihood, summarise
from mar.model.model import Model
from orderings import Adaptive, Plan

__all__ = ["Conditionals", "DrawPlan", "Likelihood", "conditionals", "score"]

DrawPlan = Callable[[Noise], Plan]  # one plan for each stream, the same for the same key


@dataclass(frozen=True)
class Conditionals:
    """Every conditional of N images, or those of the steps drawn.

    Attributes:
        step_NL: the AR step of each token (GIVEN, 0.., ABSENT).
        nats_NL: -log p(x_l | x_{S_<k}) in nats, float64; 0 where a token is given, absent or not drawn.
        weight_NL: 1 over the probability that the token's step was drawn, 0 where it was not; None: all were computed.
        estimator: what drew the steps; "exact" where all were computed.
        kind: of the head's log-probabilities.
        evaluations: evaluations of the head per token, the most for any.
        forward_rows: rows that went through the network.
        head_estimate: the head's log-probabilities depend on drawn noise.
        settings: the head's options for them.
    """

    step_NL: torch.Tensor
    nats_NL: torch.Tensor
    weight_NL: torch.Tensor | None
    estimator: str
    kind: str
    evaluations: int
    forward_rows: int
    head_estimate: bool
    settings: dict[str, Any]

    def likelihood(self, model: Model, plan: str, warnings: tuple[str, ...] = ()) -> Likelihood:
        """The figure of these conditionals.

        Args:
            plan: the plans' short text.
            warnings: what to know before quoting the figure.
        """
        return summarise(
            model, plan, self.step_NL, self.nats_NL, self.kind, self.evaluations, self.forward_rows, warnings,
            self.settings, self.weight_NL, self.estimator, self.head_estimate,
        )  # fmt: skip


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
    if len(images) == 0:
        raise UserError("no images to score")
    if rule is not None and estimator != EVERY_STEP:
        raise Unsupported("an order found along the way needs every step before the one drawn: use --estimator exact")
    batches = list(image_batches(model, images, labels, seed))
    drawn = [_draw(model, batch, draw_plan, estimator, repeat) for batch in batches]
    count = Counter(
        progress, sum(n_pairs(plan, model.network.one_pass and rule is None, chosen) for plan, chosen, _ in drawn)
    )
    steps, results = [], []
    for k, (batch, (plan, chosen, _)) in enumerate(zip(batches, drawn, strict=True)):
        token = batch.tokens(model, dequantisation)
        part = partial.part(f"{name}-{k:05d}") if partial else None
        asked = (batch.label_B, _repeated(batch.noise, repeat).at("head"), kind, budget, count)
        if rule is None:
            result, step_BL = token_log_prob(model, token, plan, *asked, chosen, part), plan.step_BL
        else:
            result, step_BL = _adaptive(model, token, plan, rule, asked, part)
        results.append(result)
        steps.append(step_BL)
    weights = [weight for _, _, weight in drawn if weight is not None]
    return Conditionals(
        torch.cat(steps).cpu(),
        -torch.cat([r.nats_BL for r in results]).double().cpu(),
        torch.cat(weights).cpu() if weights else None,
        str(estimator) if weights else "exact",
        results[0].kind,
        max(r.evaluations for r in results),
        sum(r.forward_rows for r in results),
        results[0].estimate,
        results[0].settings,
    )


def _adaptive(
    model: Model, token: torch.Tensor, plan: Plan, rule: Adaptive, asked: tuple, part: Part | None
) -> tuple[TokenLogProb, torch.Tensor]:
    """(log-probabilities, step_BL) along the orders that ``rule`` finds; kept when they are all found."""
    if part and (kept := part.read()):
        asked[-1](kept[1]["forward_rows"])
        return TokenLogProb(kept[0]["nats_BL"].to(token.device), **kept[1]), kept[0]["step_BL"]
    found = adaptive_log_prob(model, token, plan, rule, *asked)
    if part:
        notes = {f.name: getattr(found.result, f.name) for f in fields(found.result) if f.name != "nats_BL"}
        part.write({"nats_BL": found.result.nats_BL, "step_BL": found.plan.step_BL}, notes)
    return found.result, found.plan.step_BL


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
    return conditionals(model, images, labels, draw_plan, seed, **options).likelihood(model, plan, warnings)


def _draw(
    model: Model, batch: ImageBatch, draw_plan: DrawPlan, estimator: Estimator, repeat: int
) -> tuple[Plan, torch.Tensor | None, torch.Tensor | None]:
    """(plan, drawn_BK, weight_BL): the plans of some images, and the steps drawn if not all are."""
    noise, tokenizer = _repeated(batch.noise, repeat), model.tokenizer
    plan = draw_plan(noise.at("order"))
    if tokenizer.end is not None:  # examples that end by themselves
        plan = plan.shortened(tokenizer.absent(tokenizer.encode(batch.x.to(batch.label_B.device))))
    weight_BK = estimator.weights(plan.n_steps_B, noise.at("steps"))
    if weight_BK is None:
        return plan, None, None
    weight_BL = weight_BK.gather(1, plan.step_BL.clamp(0, weight_BK.shape[1] - 1))
    return plan, weight_BK > 0, weight_BL


def _repeated(noise: Noise, repeat: int) -> Noise:
    return noise.at(f"repeat {repeat}") if repeat else noise

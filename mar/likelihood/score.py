"""The likelihood of images along plans drawn before the first conditional is asked for.

N images · L tokens
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mar.errors import UserError
from mar.likelihood.chain import n_pairs, token_log_prob
from mar.likelihood.summary import Likelihood, summarise
from mar.model import Model
from mar.noise import Noise, stream
from orderings import Plan

__all__ = ["DrawPlan", "Likelihood", "score"]

_IMAGES = 256  # at a time; the memory budget cuts these further


DrawPlan = Callable[[Noise], Plan]  # one plan for each stream, the same for the same key


def score(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    draw_plan: DrawPlan,
    plan: str,
    seed: int = 0,
    kind: str | None = None,
    budget: int | None = None,
    warnings: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Likelihood:
    """Score ``images`` (N, C, H, W), in the data set's levels, along plans, every step.

    The plan of image k, its dequantisation and the noise of a bound are functions of (seed, k) alone, so two plans
    scored with one seed are compared on the same images and noise.

    Args:
        draw_plan: from one stream per image, their plans.
        plan: the plan's short text.
        kind: one of the head's likelihoods; None: its default.
        budget: bytes of activations; None: what suits the device.
        progress: called with (rows done, rows in all).
    """
    if len(images) == 0:
        raise UserError("no images to score")
    device = next(model.parameters()).device
    labels = torch.full((len(images),), -1) if labels is None else labels
    streams = [stream(seed, "nll", index, device) for index in torch.arange(len(images)).split(_IMAGES)]
    plans = [draw_plan(noise.at("order")) for noise in streams]
    total = sum(n_pairs(p, model.network.one_pass) for p in plans)
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, total)

    results = []
    for noise, rows, x, label_B in zip(streams, plans, images.split(_IMAGES), labels.split(_IMAGES), strict=True):
        token = model.tokenizer.encode(x.to(device), noise.at("dequantise"))
        head = noise.at("head")
        results.append(token_log_prob(model, token, rows, label_B.to(device), head, kind, budget, advance))
    steps = torch.cat([p.step_BL for p in plans]).cpu()
    nats = -torch.cat([r.nats_BL for r in results]).double().cpu()
    first = results[0]
    return summarise(model, plan, steps, nats, first.kind, first.evaluations, total, warnings)

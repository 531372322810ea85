"""The likelihood of images along a plan, with its standard error, its curve over steps and its map over positions.

N images · L tokens · K AR steps
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mar.errors import UserError
from mar.likelihood.chain import TokenLogProb, n_pairs, token_log_prob
from mar.model import Model
from mar.noise import Noise, stream
from orderings import Plan

_IMAGES = 256  # at a time; the memory budget cuts these further


@dataclass(frozen=True)
class Likelihood:
    """The negative log-likelihood of N images along a plan.

    Attributes:
        plan: short text, e.g. "spiral/cosine:16".
        kind: "exact"; "bound": at least the NLL, in expectation; "ode".
        n_images: N.
        nats_per_image: mean of -log p(data | plan): for integer data with continuous tokens, of the dequantised bound.
        standard_error_nats: of that mean, over images (and their orders, where the order is random).
        bits_per_dim: nats_per_image over log 2 times the data's dimensions; None for latents.
        standard_error_bits_per_dim: of it.
        steps: the largest number of AR steps.
        evaluations: evaluations of the head per token.
        forward_rows_per_image: rows of the network's forward pass for one image.
        warnings: what to know before quoting the figure.
        nats_per_step: (K,) mean nats of each step: the curve of conditional entropies along the order. For vector
            tokens this and nats_per_position are of the tokens, without the Jacobian that nats_per_image includes.
        tokens_per_step: (K,) mean tokens of each step.
        nats_per_position: (L,) mean nats of each grid position, row-major.
        nats_of_image: (N,) for paired comparisons: row k is example k of the split.
    """

    plan: str
    kind: str
    n_images: int
    nats_per_image: float
    standard_error_nats: float
    bits_per_dim: float | None
    standard_error_bits_per_dim: float | None
    steps: int
    evaluations: int
    forward_rows_per_image: float
    warnings: tuple[str, ...]
    nats_per_step: tuple[float, ...]
    tokens_per_step: tuple[float, ...]
    nats_per_position: tuple[float, ...]
    nats_of_image: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    return _summary(model, plan, steps, nats, results[0], total, warnings)


def _summary(
    model: Model,
    plan: str,
    step_NL: torch.Tensor,
    nats_NL: torch.Tensor,
    first: TokenLogProb,
    rows: int,
    warnings: tuple[str, ...],
) -> Likelihood:
    n, tokenizer = len(nats_NL), model.tokenizer
    nats_N = nats_NL.sum(1) - tokenizer.log_jacobian
    mean, error = float(nats_N.mean()), float(nats_N.std() / math.sqrt(n)) if n > 1 else math.nan
    per_dim = math.log(2.0) * tokenizer.dimensions
    scored_NL = (step_NL >= 0) & (step_NL < step_NL.shape[1])
    n_steps = int(step_NL[scored_NL].max()) + 1
    curve = torch.zeros(n_steps, dtype=torch.float64).index_add_(0, step_NL[scored_NL], nats_NL[scored_NL])
    return Likelihood(
        plan=plan,
        kind=first.kind,
        n_images=n,
        nats_per_image=mean,
        standard_error_nats=error,
        bits_per_dim=mean / per_dim if per_dim else None,
        standard_error_bits_per_dim=error / per_dim if per_dim else None,
        steps=n_steps,
        evaluations=first.evaluations,
        forward_rows_per_image=rows / n,
        warnings=warnings,
        nats_per_step=tuple((curve / n).tolist()),
        tokens_per_step=tuple((step_NL[scored_NL].bincount(minlength=n_steps) / n).tolist()),
        nats_per_position=tuple(nats_NL.mean(0).tolist()),
        nats_of_image=tuple(nats_N.tolist()),
    )

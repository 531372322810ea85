"""Any number of images under any plan, in batches: image k is a function of (seed, k) alone.

N images · B batch · L tokens · K AR steps
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mar.core.errors import UserError
from mar.core.noise import Noise, stream
from mar.core.progress import Progress
from mar.model.inputs import given_labels
from mar.model.model import Model
from mar.sampling.guidance import NONE, Guidance, Temperature
from mar.sampling.remask import Posterior, Remask, generate_posterior, generate_remasked
from mar.sampling.samplers import OnStep, generate
from mar.sampling.speculate import Speculation, generate_speculated
from orderings import Plan

DrawPlan = Callable[[Noise, torch.Tensor | None], Plan]  # one stream per row, given_BL -> their plans


@dataclass(frozen=True)
class Settings:
    """How to sample, beside the plan; ``adaptive`` (its rule), ``prompt`` and ``learned`` as in ``generate``.

    Attributes:
        given: (C, H, W) or (N, C, H, W) images in the data set's levels; the tokens outside ``mask`` are kept.
        mask: (L,) bool, True where tokens are generated.
        remask: tokens are masked again and redrawn; of plans that are drawn beforehand.
        speculation: several tokens a pass, with the distribution of one at a time; of such plans, too.
    """

    guidance: Guidance = NONE
    temperature: float | Temperature = 1.0
    seed: int = 0
    adaptive: str | None = None
    given: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    prompt: bool = False
    learned: bool = False
    remask: Remask | Posterior | None = None
    speculation: Speculation | None = None

    def __post_init__(self) -> None:
        if (self.given is None) != (self.mask is None):
            raise UserError("inpainting wants both a given image and a mask of the tokens to generate")
        temperature = Temperature.of(self.temperature)
        if self.speculation is not None and not temperature.constant:
            raise UserError("speculation draws every token at one temperature: leave out its schedule")
        if self.remask is not None and (self.adaptive is not None or self.learned or self.prompt):
            raise UserError("remasking follows a plan that is drawn beforehand: leave out adaptive, learned and prompt")
        if self.speculation is not None and (self.adaptive is not None or self.learned or self.remask is not None):
            raise UserError(
                "speculation draws along a fixed plan, each token once: leave out adaptive, learned, remask"
            )


def sample_many(
    model: Model, label_N: torch.Tensor, draw_plan: DrawPlan, settings: Settings, batch_size: int = 256,
    on_step: OnStep | None = None, progress: Progress | None = None, first: int = 0,
) -> torch.Tensor:  # fmt: skip
    """(N, C, H, W) examples in the data set's levels, one for each label; those before number ``first`` left out."""
    device, out = next(model.parameters()).device, []
    sample = partial(generate, rule=settings.adaptive, learned=settings.learned, prompt=settings.prompt)
    if settings.remask is not None:
        inside = isinstance(settings.remask, Posterior)
        sample = partial(generate_posterior if inside else generate_remasked, remask=settings.remask)
    elif settings.speculation is not None:
        sample = partial(generate_speculated, speculation=settings.speculation, prompt=settings.prompt)
    for index in torch.arange(first, len(label_N)).split(batch_size):
        noise = stream(settings.seed, "sample", index, device)
        given_BL, token = given_tokens(model, settings, index)
        plan = draw_plan(noise.at("order"), given_BL)
        token = sample(
            model, plan, label_N[index].to(device), noise.at("tokens"), settings.guidance, settings.temperature, token,
            on_step,
        )  # fmt: skip
        out.append(model.tokenizer.decode(token).cpu())
        if progress is not None:
            progress(int(index[-1]) + 1 - first, len(label_N) - first)
    return torch.cat(out)


def given_tokens(
    model: Model, settings: Settings, index: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """given_BL (bool) and the tokens of the given images."""
    if settings.given is None or settings.mask is None:
        return None, None
    n_tokens = math.prod(model.tokenizer.shape)
    if settings.mask.numel() != n_tokens:
        raise UserError(f"the mask has {settings.mask.numel()} tokens, the grid {model.tokenizer.shape} has {n_tokens}")
    given = settings.given if settings.given.ndim > 3 else settings.given[None]
    images = given.expand(len(index), *given.shape[1:]) if len(given) == 1 else given[index]
    token = model.tokenizer.encode(images.to(next(model.parameters()).device))
    return ~settings.mask.reshape(1, -1).bool().expand(len(index), -1), token


def labels_of(model: Model, labels: Any, n: int) -> torch.Tensor:
    """(N,) classes, all in turn for None; (N, …) conditions; -1 where the model has none, or none of these is given.

    Raises:
        UserError: a class or condition that the model does not have, or neither one nor ``n``.
    """
    if labels is not None and not model.conditional:
        raise UserError("this run has no classes: it was trained without labels")
    if labels is None:
        return torch.arange(n) % model.n_classes if model.n_classes else torch.full((n,), -1)
    return given_labels(model, labels, n)

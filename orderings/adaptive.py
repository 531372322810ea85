"""Rules that find the order during sampling: the next set, from a tensor of scores.

B batch · L tokens

At every AR step the sampler scores all unknown tokens, and the rule selects as many as the partition says. If the
scores are functions of the known tokens only, the product of conditionals along the chosen order is a normalised
density; if they use values just sampled, the likelihood is intractable (``uses_sampled_values``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from orderings.base import Component, Source, option
from orderings.grid import torch


@dataclass(frozen=True)
class Adaptive(Component):
    """A rule for the next set."""

    score: ClassVar[Literal["entropy", "margin", "log-probability"]] = (
        "entropy"  # what ``score_BL`` holds; nats but margin
    )
    uses_sampled_values: ClassVar[bool] = False
    sizes_itself: ClassVar[bool] = False  # it says how many tokens a step takes; otherwise the partition does

    def next_set(
        self,
        score_BL: torch.Tensor,
        unknown_BL: torch.Tensor,
        size_B: torch.Tensor,
        progress: float = 0.0,
        generator: Source | None = None,
    ) -> torch.Tensor:
        """Return target_BL (bool): the tokens to generate now, ``size_B`` unknown ones of each row (or all, if fewer).

        Args:
            score_BL: float, what ``score`` names, of every token; those of known tokens are ignored.
            progress: the share of AR steps done once this one is, in (0, 1].
            generator: uniforms, for random rules.
        """
        return smallest(self.key(score_BL, progress, generator), unknown_BL, size_B)

    def key(self, score_BL: torch.Tensor, progress: float, generator: Source | None) -> torch.Tensor:
        """Return key_BL: unknown tokens of smallest key (by default the score) come first. See ``next_set``."""
        return score_BL


@dataclass(frozen=True)
class LowestEntropy(Adaptive):
    """Lowest entropy of the conditional first, ties by token number; exact likelihood."""


@dataclass(frozen=True)
class HighestEntropy(Adaptive):
    """Highest entropy of the conditional first, ties by token number; exact likelihood."""

    def key(self, score_BL: torch.Tensor, progress: float, generator: Source | None) -> torch.Tensor:
        return -score_BL


@dataclass(frozen=True)
class LargestMargin(Adaptive):
    """Largest gap between the two likeliest values first, ties by token number; exact likelihood (arXiv 2502.06768).

    The gap of probabilities (Kim et al. 2025, Sec. 4, top-K probability margin) is small where two values compete,
    which entropy and the largest probability alone do not tell. Tokens are categories.
    """

    score: ClassVar[Literal["margin"]] = "margin"

    def key(self, score_BL: torch.Tensor, progress: float, generator: Source | None) -> torch.Tensor:
        return -score_BL


@dataclass(frozen=True)
class Confidence(Adaptive):
    """MaskGIT's confidence with annealed Gumbel noise (arXiv 2202.04200); no likelihood.

    log p(sampled value) + temperature · (1 − progress) · Gumbel noise, highest first, ties by token number.
    """

    temperature: float = option(4.5, least=0)  # of the choice, at the start; 0: no noise
    score: ClassVar[Literal["log-probability"]] = "log-probability"
    uses_sampled_values: ClassVar[bool] = True

    def key(self, score_BL: torch.Tensor, progress: float, generator: Source | None) -> torch.Tensor:
        scale = self.temperature * (1.0 - progress)
        if scale > 0.0:
            if generator is None:
                raise ValueError("confidence: its Gumbel noise needs a generator (or temperature=0)")
            u_BL = generator.uniform(score_BL.shape[1]).to(score_BL.device).clamp(2.0**-25, 1.0 - 2.0**-24)
            score_BL = score_BL - scale * (-u_BL.log()).log()
        return -score_BL


@dataclass(frozen=True)
class EntropyBound(Adaptive):
    """As many tokens a step as an entropy bound allows, lowest entropy first; exact likelihood (arXiv 2505.24857).

    A step takes the most tokens, by entropy, of which all but the last sum to at most ``nats``: one at least. The sum
    of entropies less the largest bounds the conditional total correlation, so that under the model's own conditionals a
    step of independent draws costs at most ``nats``. Tokens are categories, and the partition is ``singles``.
    """

    nats: float = option(1.0, least=0)
    sizes_itself: ClassVar[bool] = True

    def next_set(
        self,
        score_BL: torch.Tensor,
        unknown_BL: torch.Tensor,
        size_B: torch.Tensor,
        progress: float = 0.0,
        generator: Source | None = None,
    ) -> torch.Tensor:
        sorted_BL = torch.where(unknown_BL, score_BL.clamp(min=0.0), math.inf).sort(dim=1, stable=True).values
        before_BL = torch.cat([torch.zeros_like(sorted_BL[:, :1]), sorted_BL.cumsum(1)[:, :-1]], dim=1)
        fits_B = ((before_BL <= self.nats) & sorted_BL.isfinite()).sum(1)
        return smallest(score_BL, unknown_BL, torch.where(size_B > 0, fits_B.clamp(min=1), 0))


def smallest(score_BL: torch.Tensor, unknown_BL: torch.Tensor, size_B: torch.Tensor) -> torch.Tensor:
    """Return target_BL: in each row the ``size_B`` unknown tokens of smallest score, ties by token number."""
    order_BL = torch.argsort(score_BL, dim=1, stable=True)
    known_first_BL = (~unknown_BL).gather(1, order_BL)
    order_BL = order_BL.gather(1, torch.argsort(known_first_BL.byte(), dim=1, stable=True))  # known tokens last
    place_L = torch.arange(score_BL.shape[1], device=score_BL.device)
    chosen_BL = torch.zeros_like(unknown_BL).scatter_(1, order_BL, place_L < size_B[:, None])
    return chosen_BL & unknown_BL

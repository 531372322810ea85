"""Categorical head: a softmax over the vocabulary.

M gathered tokens · D context width · V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.options import SHARE
from mar.core.tokens import Categories
from mar.heads.base import Head, HeadOptions, LogProb, SamplingOptions, Scale, guided


@dataclass(frozen=True)
class CategoricalOptions(HeadOptions):
    label_smoothing: float = 0.0  # of the training loss only
    bounds: ClassVar = {"label_smoothing": SHARE}


@dataclass(frozen=True)
class CategoricalSampling(SamplingOptions):
    """Truncation at sampling time (never in a likelihood)."""

    greedy: bool = False
    top_k: int = 0  # keep the k likeliest categories; 0: all
    top_p: float = 1.0  # keep the smallest set of categories with at least this probability (Holtzman et al. 2020)

    def __post_init__(self) -> None:
        if self.top_k < 0 or not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_k must be >= 0 and 0 < top_p <= 1, not {self.top_k} and {self.top_p}")
        if self.greedy and (self.top_k or self.top_p < 1.0):
            raise UserError("greedy takes the likeliest category: leave out top_k and top_p")


class CategoricalHead(Head):
    Options = CategoricalOptions
    Sampling = CategoricalSampling
    tokens = Categories
    likelihoods = frozenset({"exact"})
    default_likelihood = "exact"
    loss_is_nll = True

    token: Categories
    sampling: CategoricalSampling

    def __init__(self, context_width: int, token: Categories, options: CategoricalOptions) -> None:
        super().__init__()
        self.token, self.options, self.sampling = token, options, CategoricalSampling()
        self.logits = nn.Linear(context_width, token.vocabulary)

    def loss(self, z_MD: Tensor, x_M: Tensor, noise: Noise) -> Tensor:
        """Cross-entropy in nats; smoothed in training only, so that validation is an NLL."""
        smoothing = self.options.label_smoothing if self.training else 0.0
        return F.cross_entropy(self.scores(z_MD), x_M, reduction="none", label_smoothing=smoothing)

    def log_prob(self, z_MD: Tensor, x_M: Tensor, kind: str, noise: Noise) -> LogProb:
        return LogProb(self.log_probabilities(z_MD).gather(1, x_M[:, None])[:, 0], "exact")

    def sample(
        self, z_MD: Tensor, noise: Noise, z_null_MD: Tensor | None = None, guidance_M: Scale = 1, temperature: float = 1
    ) -> Tensor:
        return draw(self._guided(z_MD, z_null_MD, guidance_M), noise, self.sampling, temperature)

    def probabilities(
        self, z_MD: Tensor, z_null_MD: Tensor | None = None, guidance_M: Scale = 1, temperature: float = 1
    ) -> Tensor:
        """Return p_MV that ``sample`` draws from: with guidance, temperature and truncation."""
        return probabilities(self._guided(z_MD, z_null_MD, guidance_M), self.sampling, temperature)

    def _guided(self, z_MD: Tensor, z_null_MD: Tensor | None, guidance_M: Scale) -> Tensor:
        score_MV = self.scores(z_MD)
        return score_MV if z_null_MD is None else guided(score_MV, self.scores(z_null_MD), guidance_M)

    def entropy(self, z_MD: Tensor) -> Tensor:
        log_p_MV = self.log_probabilities(z_MD)
        return -(log_p_MV.exp() * log_p_MV).sum(-1)

    def margin(self, z_MD: Tensor) -> Tensor:
        top_M2 = self.log_probabilities(z_MD).exp().topk(min(2, self.token.vocabulary), dim=-1).values
        return top_M2[:, 0] - top_M2[:, -1]

    def scores(self, z_MD: Tensor) -> Tensor:
        """Return the log-probabilities of all categories up to a constant for each token (M, V), float32."""
        return self.logits(z_MD).float()

    def log_probabilities(self, z_MD: Tensor) -> Tensor:
        """Return log_p_MV of every category."""
        return F.log_softmax(self.scores(z_MD), dim=-1)


def draw(logits_MV: Tensor, noise: Noise, sampling: CategoricalSampling, temperature: float) -> Tensor:
    """Return x_M from p^(1 / temperature), truncated as ``sampling`` says; at temperature 0 the likeliest category."""
    if sampling.greedy or temperature == 0.0:
        return _checked(logits_MV).argmax(-1)
    return choose(probabilities(logits_MV, sampling, temperature), noise)


def probabilities(logits_MV: Tensor, sampling: CategoricalSampling, temperature: float) -> Tensor:
    """Return p_MV that ``draw`` draws from. Raises UserError: a logit is NaN or infinite."""
    _checked(logits_MV)
    if sampling.greedy or temperature == 0.0:
        return F.one_hot(logits_MV.argmax(-1), logits_MV.shape[-1]).to(logits_MV.dtype)
    return _truncate(logits_MV / temperature, sampling).softmax(-1)


def choose(weight_MV: Tensor, noise: Noise) -> Tensor:
    """Return x_M, a category of each row with probability in proportion to ``weight_MV``.

    By inverse transform: one uniform for each token, so that the draw does not depend on the batch around it.
    """
    cumulative_MV = weight_MV.cumsum(-1)
    threshold_M1 = noise.uniform(1).to(cumulative_MV) * cumulative_MV[:, -1:]
    return (cumulative_MV <= threshold_M1).sum(-1).clamp(max=weight_MV.shape[-1] - 1)


def _checked(logits_MV: Tensor) -> Tensor:
    if not bool((logits_MV < torch.inf).all()):  # NaN, too
        raise UserError("the logits of a token are not finite: the weights of the model are broken")
    return logits_MV


def _truncate(logits_MV: Tensor, sampling: CategoricalSampling) -> Tensor:
    """Keep the top k, then the top p; everything else gets probability zero."""
    if 0 < sampling.top_k < logits_MV.shape[-1]:
        kth_M1 = logits_MV.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits_MV = logits_MV.masked_fill(logits_MV < kth_M1, -torch.inf)
    if sampling.top_p < 1.0:
        p_MV, order_MV = logits_MV.softmax(-1).sort(dim=-1, descending=True)
        beyond_MV = p_MV.cumsum(-1) - p_MV >= sampling.top_p  # the mass before this category already suffices
        logits_MV = logits_MV.masked_fill(torch.zeros_like(beyond_MV).scatter(-1, order_MV, beyond_MV), -torch.inf)
    return logits_MV

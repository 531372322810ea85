"""Discretised logistic mixture: ordered levels as bins of a mixture of logistic densities.

M gathered tokens · D context width · V vocabulary (the levels, in their order) · N levels of a token · K components

Salimans et al. 2017, "PixelCNN++", section 2.1, for one-channel pixels. Levels lie evenly on [-1, 1]; a level's
probability is the mass of the bin around it, and the two outermost bins take the tails: it sums to 1 over the levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.options import POSITIVE, at_least
from mar.core.tokens import Categories
from mar.heads.base import Head, HeadOptions
from mar.heads.categorical import CategoricalHead, CategoricalSampling

_ROWS = 2048  # tokens whose every level is evaluated at once: bounds the memory, rows x V x K


@dataclass(frozen=True)
class LogisticMixtureOptions(HeadOptions):
    components: int = 10
    smallest_scale: float = 1e-3  # of a logistic, where the levels span [-1, 1]
    bounds: ClassVar = {"components": at_least(1), "smallest_scale": POSITIVE}


class LogisticMixtureHead(CategoricalHead):
    """A categorical head whose probabilities know that levels are ordered: 3 K outputs, whatever the vocabulary.

    It samples as the categorical head does, from the probabilities of all levels: temperature, guidance (the geometric
    extrapolation of the two distributions, exactly) and truncation mean the same.
    """

    Options = LogisticMixtureOptions
    test_options: ClassVar[dict[str, Any]] = {"components": 2}

    options: LogisticMixtureOptions

    def __init__(self, context_width: int, token: Categories, options: LogisticMixtureOptions) -> None:
        Head.__init__(self)  # it has no linear map to logits
        if token.vocabulary < 2:
            raise UserError("a logistic mixture needs at least 2 levels: use a tokenizer with more categories")
        self.token, self.options, self.sampling = token, options, CategoricalSampling()
        self.mixture = nn.Linear(context_width, 3 * options.components)
        with torch.no_grad():  # components start spread over the levels
            log_weight_K, mean_K, scale_K = self.mixture.bias.chunk(3)
            log_weight_K.zero_()
            mean_K.copy_(torch.linspace(-1, 1, options.components + 2)[1:-1])
            scale_K.zero_()

    def loss(self, z_MD: Tensor, x_M: Tensor, noise: Noise) -> Tensor:
        """-log p in nats, from the bins of ``x_M`` alone."""
        return -self._log_p(z_MD, x_M[:, None])[:, 0]

    log_prob = Head.log_prob

    def scores(self, z_MD: Tensor) -> Tensor:
        return self.log_probabilities(z_MD)

    def log_probabilities(self, z_MD: Tensor) -> Tensor:
        """Return log_p_MV of every level."""
        level_1V = torch.arange(self.token.vocabulary, device=z_MD.device)[None]
        return torch.cat([self._log_p(rows_ND, level_1V) for rows_ND in z_MD.split(_ROWS)])

    def _log_p(self, z_MD: Tensor, level_MN: Tensor) -> Tensor:
        """Return log_p_MN of some levels: (M, N), or (1, N) for the same ones in every row."""
        log_weight_MK, mean_MK, scale_MK = self.mixture(z_MD).float().chunk(3, dim=-1)
        scale_MK = F.softplus(scale_MK) + self.options.smallest_scale
        log_bin_MNK = log_bins(level_MN[..., None], self.token.vocabulary, mean_MK[:, None], scale_MK[:, None])
        return (log_weight_MK.log_softmax(-1)[:, None] + log_bin_MNK).logsumexp(-1)


def log_bins(level: Tensor, levels: int, mean: Tensor, scale: Tensor) -> Tensor:
    """The log-mass of a logistic density in the bin of each level; shapes broadcast.

    With a and b the bin's edges, standardised, the mass is F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)), F the logistic
    CDF: each factor has a stable logarithm however far out or narrow the bin is, so none needs an approximation
    (PixelCNN++ takes the density at the bin's centre there). An outermost bin lacks an edge, and so two factors.
    """
    width = 2.0 / (levels - 1)
    upper = (width * (level + 0.5) - 1.0 - mean) / scale
    lower = (width * (level - 0.5) - 1.0 - mean) / scale
    first, last = level == 0, level == levels - 1
    log_below = F.logsigmoid(upper).masked_fill(last, 0.0)
    log_above = F.logsigmoid(-lower).masked_fill(first, 0.0)
    log_between = (-torch.expm1(-width / scale)).log().expand_as(upper).masked_fill(first | last, 0.0)
    return log_below + log_above + log_between

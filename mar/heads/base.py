"""The contract of heads: one context vector -> one distribution over one token.

M gathered tokens · D context width · E token channels · V vocabulary

A head receives only wanted tokens. Categories have shape (M,), vectors (M, E).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from mar.core.errors import Unsupported
from mar.core.noise import Noise
from mar.core.options import replaced
from mar.core.tokens import TokenKind


@dataclass(frozen=True)
class HeadOptions:
    """The base of the options of heads."""


@dataclass(frozen=True)
class SamplingOptions:
    """The base of the sampling options of heads (``head.sampling``), beside guidance and temperature."""

    def at(self, progress: float) -> SamplingOptions:
        """Return the options at a share 0..1 of the AR steps of a generation; constant by default."""
        return self


@dataclass(frozen=True)
class ScoringOptions:
    """The base of the likelihood options of heads (``head.scoring``)."""


@dataclass(frozen=True)
class LogProb:
    """Log-probabilities (or log-densities) of M tokens.

    Attributes:
        nats_M: log p(x_m | z_m) in nats; never averaged over channels.
        kind: "exact", "bound" (E[nats] <= log p) or "ode".
        evaluations: evaluations of the head's network for each token; the maximum where tokens differ.
        estimate: nats_M depend on sampled noise; ``kind`` describes their expectation. Their exponential is
            biased towards too-good values (Jensen), so log-mean-exp refuses them.
        settings: further dependencies of the figure (t_min, solver, tolerance, …), to be stated with it.
    """

    nats_M: torch.Tensor
    kind: str
    evaluations: int = 1
    estimate: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


class Head(nn.Module):
    """Constructed as ``Head(context_width, token, options)``."""

    Options: ClassVar[type] = HeadOptions
    Sampling: ClassVar[type] = SamplingOptions
    Scoring: ClassVar[type] = ScoringOptions
    test_options: ClassVar[dict[str, Any]] = {}  # options that make a small instance, for ``mar verify``
    test_sampling: ClassVar[dict[str, Any]] = {}  # sampling options that go with them
    test_scoring: ClassVar[dict[str, Any]] = {}  # scoring options that go with them
    tokens: ClassVar[type]  # Categories or Vectors: the tokens that this head models
    likelihoods: ClassVar[frozenset[str]] = frozenset()  # of "exact", "ode", "bound"
    default_likelihood: ClassVar[str]
    decayed: ClassVar[bool] = True  # weight decay acts on its matrices
    loss_is_nll: ClassVar[bool] = False  # the training loss estimates -log p in nats (or bounds it)

    token: TokenKind
    sampling: SamplingOptions  # the sampler replaces this object; do not mutate it
    scoring: ScoringOptions = ScoringOptions()  # likewise; a head with its own ``Scoring`` sets it

    def check_kind(self, kind: str | None) -> str:
        """Return the kind of likelihood to compute; None means the default.

        Raises:
            Unsupported: this head has no such likelihood.
        """
        kind = kind or self.default_likelihood
        if kind not in self.likelihoods:
            known = ", ".join(sorted(self.likelihoods))
            raise Unsupported(f"{type(self).__name__} has no likelihood of kind {kind!r}: choose {known}")
        return kind

    def compile_parts(self) -> None:
        """Compile the slow parts in place; none by default."""

    def loss(self, z_MD: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Return loss_M, the training loss of each token (nats if the loss is a likelihood)."""
        raise NotImplementedError

    def log_prob(self, z_MD: torch.Tensor, x_M: torch.Tensor, kind: str, noise: Noise) -> LogProb:
        """Return log-probabilities of a kind in ``likelihoods``: guidance 1, temperature 1, no truncation."""
        raise NotImplementedError

    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Return x_M (int64) or x_ME (float32). ``noise`` has one stream for each of the M tokens.

        With ``z_null_MD`` the prediction is null + guidance (conditional - null): Ho & Salimans 2022, in the form
        where 1 means no guidance.
        """
        raise NotImplementedError

    def entropy(self, z_MD: torch.Tensor) -> torch.Tensor:
        """Return nats_M, the entropy of each token's distribution."""
        raise Unsupported(f"{type(self).__name__} has no tractable entropy: use a categorical head")


def sampling_options(head: Head, options: dict[str, Any]) -> AbstractContextManager[None]:
    """Sample with ``options`` in place of the head's own inside the block.

    Raises:
        UserError: the head has no such option; the message lists its options.
    """
    return _replaced(head, "sampling", options)


@contextmanager
def sampling_at(head: Head, progress: float) -> Iterator[None]:
    """Sample with the head's options at a share 0..1 of a generation inside the block."""
    before, head.sampling = head.sampling, head.sampling.at(progress)
    try:
        yield
    finally:
        head.sampling = before


def scoring_options(head: Head, options: dict[str, Any]) -> AbstractContextManager[None]:
    """Compute likelihoods with ``options`` in place of the head's own inside the block.

    Raises:
        UserError: the head has no such option; the message lists its options.
    """
    return _replaced(head, "scoring", options)


@contextmanager
def _replaced(head: Head, which: Literal["sampling", "scoring"], options: dict[str, Any]) -> Iterator[None]:
    before = getattr(head, which)
    setattr(head, which, replaced(before, options, f"{which} option of {type(head).__name__}:", f"{which} option "))
    try:
        yield
    finally:
        setattr(head, which, before)

"""What a head is: one context vector -> one distribution over one token.

M gathered tokens · D context width · E token channels · V vocabulary

Only wanted tokens reach a head. Categories have shape (M,), vectors (M, E).
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
    """Base of every head's options."""


@dataclass(frozen=True)
class SamplingOptions:
    """Base of every head's options at sampling time (``head.sampling``), beside guidance and temperature."""

    def at(self, progress: float) -> SamplingOptions:
        """The options at a share 0..1 of a generation's AR steps; the same all along by default."""
        return self


@dataclass(frozen=True)
class ScoringOptions:
    """Base of every head's options of its likelihoods (``head.scoring``)."""


@dataclass(frozen=True)
class LogProb:
    """Log-probabilities (or log-densities) of M tokens.

    Attributes:
        nats_M: log p(x_m | z_m) in nats; never averaged over channels.
        kind: "exact", "bound" (E[nats] <= log p) or "ode".
        evaluations: evaluations of the head's network for each token; the most for any, where they differ.
        estimate: nats_M depend on drawn noise and only their expectation is what ``kind`` says. Their exponential is
            biased towards too-good values (Jensen), so log-mean-exp refuses them.
        settings: what the figure depends on beside the model (t_min, solver, tolerance, …), to be quoted with it.
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
    tiny: ClassVar[dict[str, Any]] = {}  # options that make a small instance, for ``mar verify``
    tiny_sampling: ClassVar[dict[str, Any]] = {}  # sampling options that go with them
    tiny_scoring: ClassVar[dict[str, Any]] = {}  # scoring options that go with them
    tokens: ClassVar[type]  # Categories or Vectors: what this head models
    likelihoods: ClassVar[frozenset[str]] = frozenset()  # of "exact", "ode", "bound"
    default_likelihood: ClassVar[str]
    decayed: ClassVar[bool] = True  # weight decay acts on its matrices
    loss_is_nll: ClassVar[bool] = False  # the training loss estimates -log p in nats (or bounds it)

    token: TokenKind
    sampling: SamplingOptions  # replaced, never mutated, by who samples
    scoring: ScoringOptions = ScoringOptions()  # by who scores; a head with a ``Scoring`` of its own sets it

    def check_kind(self, kind: str | None) -> str:
        """The kind of likelihood to compute; None means the default.

        Raises:
            Unsupported: this head has no such likelihood.
        """
        kind = kind or self.default_likelihood
        if kind not in self.likelihoods:
            known = ", ".join(sorted(self.likelihoods))
            raise Unsupported(f"{type(self).__name__} has no likelihood of kind {kind!r}: choose {known}")
        return kind

    def compile_parts(self) -> None:
        """Compile in place what takes time; nothing by default."""

    def loss(self, z_MD: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        """loss_M: the training loss of each token (nats where the loss is a likelihood)."""
        raise NotImplementedError

    def log_prob(self, z_MD: torch.Tensor, x_M: torch.Tensor, kind: str, noise: Noise) -> LogProb:
        """Log-probabilities of one of the kinds in ``likelihoods``: guidance 1, temperature 1, no truncation."""
        raise NotImplementedError

    def sample(
        self,
        z_MD: torch.Tensor,
        noise: Noise,
        z_null_MD: torch.Tensor | None = None,
        guidance_M: torch.Tensor | float = 1.0,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """x_M (int64) or x_ME (float32). ``noise`` has one stream for each of the M tokens.

        With ``z_null_MD`` the prediction is null + guidance (conditional - null): Ho & Salimans 2022, in the form
        where 1 means no guidance.
        """
        raise NotImplementedError

    def entropy(self, z_MD: torch.Tensor) -> torch.Tensor:
        """nats_M: the entropy of each token's distribution."""
        raise Unsupported(f"{type(self).__name__} has no tractable entropy: use a categorical head")


def sampling_options(head: Head, options: dict[str, Any]) -> AbstractContextManager[None]:
    """The head samples with ``options`` in place of its own inside the block.

    Raises:
        UserError: the head has no such option; the message names those that it has.
    """
    return _replaced(head, "sampling", options)


@contextmanager
def sampling_at(head: Head, progress: float) -> Iterator[None]:
    """The head samples with its options at a share 0..1 of a generation inside the block."""
    before, head.sampling = head.sampling, head.sampling.at(progress)
    try:
        yield
    finally:
        head.sampling = before


def scoring_options(head: Head, options: dict[str, Any]) -> AbstractContextManager[None]:
    """The head's likelihoods are computed with ``options`` in place of its own inside the block.

    Raises:
        UserError: the head has no such option; the message names those that it has.
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

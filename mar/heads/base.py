"""The contract of heads: one context vector -> one distribution over one token.

M gathered tokens · D context width · E token channels · V vocabulary

A head receives only wanted tokens. Categories have shape (M,), vectors (M, E).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from mar.core.errors import Unsupported
from mar.core.noise import Noise
from mar.core.options import Options, replaced, swapped
from mar.core.tokens import TokenKind

Scale = Tensor | float  # of guidance: one for all tokens, or one for each


@dataclass(frozen=True)
class HeadOptions(Options):
    """The base of the options of heads."""

    family: ClassVar[str] = "head"


@dataclass(frozen=True)
class SamplingOptions:
    """The base of the sampling options of heads (``head.sampling``), beside guidance and temperature."""

    later: ClassVar[tuple[str, ...]] = ()  # options that records omit at their default, since older ones lack them

    def told(self) -> dict[str, Any]:
        """Return the options as records have them."""
        return {
            f.name: x for f in fields(self) if (x := getattr(self, f.name)) != f.default or f.name not in self.later
        }

    def at(self, progress: float) -> SamplingOptions:
        """Return the options at a share 0..1 of the AR steps of a generation; constant by default."""
        return self


@dataclass(frozen=True)
class ScoringOptions:
    """The base of the likelihood options of heads (``head.scoring``)."""


@dataclass(frozen=True)
class LogProb:
    """Log-probabilities (or log-densities) of M tokens.

    With ``estimate`` nats_M depend on sampled noise, and ``kind`` describes their expectation. Their exponential is
    biased towards too-good values (Jensen), so log-mean-exp refuses them.
    """

    nats_M: Tensor  # log p(x_m | z_m); never averaged over channels
    kind: str  # "exact", "bound" (E[nats] <= log p) or "ode"
    evaluations: int = 1  # of the head's network for each token; the maximum where tokens differ
    estimate: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # further dependencies of the figure (t_min, solver, …)


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
        """Return the kind of likelihood to compute; None means the default. Raise Unsupported if there is none."""
        kind = kind or self.default_likelihood
        if kind not in self.likelihoods:
            known = ", ".join(sorted(self.likelihoods))
            raise Unsupported(f"{type(self).__name__} has no likelihood of kind {kind!r}: choose {known}")
        return kind

    def compile_parts(self) -> None:
        """Compile the slow parts in place; none by default."""

    def loss(self, z_MD: Tensor, x_M: Tensor, noise: Noise) -> Tensor:
        """Return loss_M, the training loss of each token (nats if the loss is a likelihood)."""
        raise NotImplementedError

    def log_prob(self, z_MD: Tensor, x_M: Tensor, kind: str, noise: Noise) -> LogProb:
        """Return log-probabilities of a kind in ``likelihoods``: guidance 1, temperature 1, no truncation.

        By default minus the loss, of a head whose loss is the exact NLL.
        """
        return LogProb(-self.loss(z_MD, x_M, noise), self.check_kind(kind))

    def sample(
        self, z_MD: Tensor, noise: Noise, z_null_MD: Tensor | None = None, guidance_M: Scale = 1, temperature: float = 1
    ) -> Tensor:
        """Return x_M (int64) or x_ME (float32). ``noise`` has one stream for each of the M tokens.

        With ``z_null_MD`` the prediction is ``guided`` (Ho & Salimans 2022, in the form where 1 means no guidance).
        """
        raise NotImplementedError

    def entropy(self, z_MD: Tensor) -> Tensor:
        """Return nats_M, the entropy of each token's distribution."""
        raise Unsupported(f"{type(self).__name__} has no tractable entropy: use a categorical head")

    def margin(self, z_MD: Tensor) -> Tensor:
        """Return gap_M in [0, 1]: the probability of each token's likeliest value less that of the second."""
        raise Unsupported(f"{type(self).__name__} has no probabilities of single values: use a categorical head")


def replaced_options(
    head: Head, which: Literal["sampling", "scoring"], options: dict[str, Any]
) -> AbstractContextManager[None]:
    """Use ``options`` in place of the head's own inside the block. Raise UserError for unknown ones."""
    what = f"{which} option of {type(head).__name__}:"
    return swapped(head, which, replaced(getattr(head, which), options, what, f"{which} option "))


def sampling_at(head: Head, progress: float) -> AbstractContextManager[None]:
    """Sample with the head's options at a share 0..1 of a generation inside the block."""
    return swapped(head, "sampling", head.sampling.at(progress))


def guided(value_MX: Tensor, null_MX: Tensor, guidance_M: Scale) -> Tensor:
    """Return null + guidance (value - null), with one scale for all tokens or one for each."""
    scale = guidance_M[:, None] if isinstance(guidance_M, Tensor) else guidance_M
    return null_MX + scale * (value_MX - null_MX)

"""The contract of tokenizers: data <-> tokens on a grid, and the change of a likelihood between the two.

B batch · L tokens · E token channels · N rows of training data
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from mar.core.devices import double
from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.core.options import Options
from mar.core.spec import DataSpec
from mar.core.tokens import TokenKind
from orderings import Grid


def require_images(name: str, spec: DataSpec) -> None:
    """Check that tokenizer ``name`` gets images of 2 to 256 levels. Raises UserError with a tokenizer that fits."""
    if len(spec.shape) != 3 or not 2 <= spec.levels <= 256 or spec.modality != "image":
        other = "pixels or patches" if spec.modality == "video" else "sequence" if spec.levels else "values"
        raise UserError(
            f"tokenizer {name} needs images of 2 to 256 levels, not {spec.modality} of shape {spec.shape} with "
            f"{spec.levels} levels: use tokenizer.kind={other}"
        )


def moments(batches: Iterable[torch.Tensor], shared: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean_E and the mean square_E in float64 over the rows of all batches (N, E); ``shared``: over E, too.

    Raises:
        UserError: the batches have no rows.
    """
    count, total_E, square_E = 0, torch.zeros(()), torch.zeros(())
    for y_NE in batches:
        y_NE = double(y_NE)
        count, total_E, square_E = count + len(y_NE), total_E + y_NE.sum(0), square_E + y_NE.square().sum(0)
    if count == 0:
        raise UserError("no training data to measure the scale of the tokens from")
    found = total_E / count, square_E / count
    return tuple(x.mean().expand_as(x) for x in found) if shared else found  # type: ignore[return-value]


@dataclass(frozen=True)
class TokenizerOptions(Options):
    """Base of every tokenizer's options."""

    family: ClassVar[str] = "tokenizer"


class Tokenizer(nn.Module):
    """Constructed as ``Tokenizer(spec, options)``. Raises UserError for data that it cannot serve.

    Attributes:
        shape: the token grid's, e.g. (14, 14).
        time: the first axis of ``shape`` is time.
        token: Categories or Vectors.
        dimensions: data dimensions of one example, the denominator of bits/dim; 0 if tokens do not determine the data.
        end: the category that ends an example before its grid does; None: every example fills its grid.
        real: the data are real values, without dequantisation.
        reads_latents: ``encode`` takes the examples of a cache (``DataSpec.latents``), too.
        notes: warnings from ``fit``.
    """

    Options: ClassVar[type] = TokenizerOptions

    shape: tuple[int, ...]
    time: bool = False
    token: TokenKind
    dimensions: int
    end: int | None = None
    real: ClassVar[bool] = False
    reads_latents: ClassVar[bool] = False
    notes: tuple[str, ...] = ()

    @property
    def lattice(self) -> Grid:
        """The token grid."""
        return Grid(self.shape, self.time)

    def fit(self, batches: Iterable[torch.Tensor]) -> None:
        """Measure the scale over batches of the training split and keep it in buffers."""

    def encode(self, x: torch.Tensor, noise: Noise | None = None) -> torch.Tensor:
        """Return tokens (B, L) int64 or (B, L, E) float32 of a batch of data.

        ``noise`` (one stream an example) dequantises integer levels uniformly, v -> v + u; without it they stand at
        the middle of their bin. Categories ignore it.
        """
        raise NotImplementedError

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """Data of the tokens, in the levels and type of the data set; values out of range are clamped."""
        raise NotImplementedError

    def absent(self, token: torch.Tensor) -> torch.Tensor:
        """absent_BL (bool): the tokens after the first ``end`` of each row; none where every example fills its grid."""
        if self.end is None:
            return torch.zeros(token.shape[:2], dtype=torch.bool, device=token.device)
        end_BL = token == self.end
        return end_BL.cumsum(1) > end_BL.long()

    def check(self, step_BL: torch.Tensor) -> None:
        """Raise Unsupported if a plan draws a token before, or in one set with, an ``end`` on its left."""
        early_BL, late_BL = step_BL[:, :-1], step_BL[:, 1:]
        if self.end is not None and not bool(((late_BL > early_BL) | (late_BL < 0)).all()):
            raise Unsupported(
                "examples of their own length are made from left to right, one token at a time: use ordering=raster "
                "and partition=singles, or windows of one length (data.kind=text), which take any order"
            )

    def require_one_length(self, what: str) -> None:
        """Raise Unsupported if examples end by themselves: ``what`` compares positions across examples."""
        if self.end is not None:
            hint = "use windows of one length (data.kind=text)"
            raise Unsupported(f"{what} compares positions, which documents of different lengths do not share: {hint}")

    @property
    def log_jacobian(self) -> float:
        """log |det d(token)/d(data)| in nats per example, 0 for categories: log p(data) = log p(tokens) + log_jacobian.

        With uniform dequantisation this is a lower bound in expectation (Theis et al. 2016, eq. 3).
        """
        return 0.0

    def bits_per_dim(self, nats_per_image: float) -> float:
        """-log p(tokens) in nats per example -> bits per dimension, Jacobian included. Unsupported: no dimensions."""
        if not self.dimensions:
            raise Unsupported("latents and colours of a palette have nats per token, no bits/dim of images")
        return (nats_per_image - self.log_jacobian) / (math.log(2.0) * self.dimensions)

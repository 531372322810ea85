"""What models are measured against without training one.

N images · L tokens · V vocabulary · C classes

- Every token independent of all others, from counts with add-one smoothing: a model that beats it has learned something
  about how tokens depend on each other.
- A linear classifier of the pixels: features that beat it say more about the class than what they were made from.
"""

from __future__ import annotations

import math

import torch

from mar.core.tokens import Categories
from mar.data.base import Data, Split, evenly_spaced
from mar.experiments.result import Row
from mar.likelihood.score import Likelihood
from mar.metrics.probe import Labelled, fit
from mar.tokenizers.base import Tokenizer


def pixels_row(data: Data, strength: float) -> Row:
    """The linear probe on the examples themselves."""
    probe = fit(_labelled(data.train), _labelled(data.test), strength, sets=0)
    return Row("pixels", "the pixels themselves", "", probe=probe)


def _labelled(split: Split) -> Labelled:
    x, label_N = split.batch(torch.arange(len(split)))
    assert label_N is not None  # the models were probed on the same labels
    return x.flatten(1).float().numpy(), label_N.numpy()


def independent_rows(
    data: Data, tokenizer: Tokenizer, split: str, limit: int | None, conditional: bool
) -> tuple[Row, ...]:
    """Independent tokens, and beside ``conditional`` models independent tokens given the class; nothing for vectors,
    nor for examples of their own lengths, of which counts would be of what fills them up."""
    if not isinstance(tokenizer.token, Categories) or tokenizer.end is not None:
        return ()
    rows = [_row(data, tokenizer, split, limit, by_class=False)]
    if conditional and data.spec.n_classes:
        rows.append(_row(data, tokenizer, split, limit, by_class=True))
    return tuple(rows)


def _row(data: Data, tokenizer: Tokenizer, split: str, limit: int | None, by_class: bool) -> Row:
    name = "independent tokens, by class" if by_class else "independent tokens"
    train_NL, train_N = _tokens(data.train, tokenizer, None)
    token_NL, class_N = _tokens(data.split(split), tokenizer, limit)
    if not by_class:
        train_N, class_N = torch.zeros_like(train_N), torch.zeros_like(class_N)
    n_classes = data.spec.n_classes if by_class else 1
    probability_CLV = smoothed(train_NL, train_N, tokenizer.token.vocabulary, n_classes)  # type: ignore[union-attr]
    position_L = torch.arange(token_NL.shape[1])
    nats_NL = -probability_CLV[class_N[:, None], position_L, token_NL].log()
    return Row(name, name, "all at once", likelihood=_likelihood(name, nats_NL, tokenizer.dimensions))


def smoothed(token_NL: torch.Tensor, class_N: torch.Tensor, vocabulary: int, n_classes: int) -> torch.Tensor:
    """(count + 1) / (N + V) for every class, position and category: float64 (C, L, V)."""
    length = token_NL.shape[1]
    cell_NL = (class_N[:, None] * length + torch.arange(length)) * vocabulary + token_NL
    count = torch.bincount(cell_NL.flatten(), minlength=n_classes * length * vocabulary).double() + 1.0
    count_CLV = count.reshape(n_classes, length, vocabulary)
    return count_CLV / count_CLV.sum(-1, keepdim=True)


def _tokens(split: Split, tokenizer: Tokenizer, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    x, label_N = split.batch(evenly_spaced(len(split), limit))
    return tokenizer.encode(x), torch.zeros(len(x), dtype=torch.int64) if label_N is None else label_N


def _likelihood(name: str, nats_NL: torch.Tensor, dimensions: int) -> Likelihood:
    nats_N = nats_NL.sum(1)
    mean, error = float(nats_N.mean()), float(nats_N.std() / math.sqrt(len(nats_N)))
    per_dim = math.log(2.0) * dimensions
    return Likelihood(
        plan=name,
        kind="exact",
        n_images=len(nats_N),
        nats_per_image=mean,
        standard_error_nats=error,
        bits_per_dim=mean / per_dim if per_dim else None,
        standard_error_bits_per_dim=error / per_dim if per_dim else None,
        steps=1,
        evaluations=0,
        forward_rows_per_image=0.0,
        warnings=(),
        nats_per_step=(mean,),
        tokens_per_step=(float(nats_NL.shape[1]),),
        nats_per_position=tuple(nats_NL.mean(0).tolist()),
        nats_of_image=tuple(nats_N.tolist()),
    )

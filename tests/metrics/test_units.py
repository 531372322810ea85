"""What tables call an example and its dimensions, by what the data are."""

from __future__ import annotations

import pytest

from mar.core.spec import DataSpec
from mar.core.tokens import Categories, Vectors
from mar.metrics.base import Units
from mar.verification.models import BareTokens

TEXT = {"modality": "text", "alphabet": ("a", "b")}


@pytest.mark.parametrize(
    ("spec", "token", "dimensions", "words"),
    [
        (DataSpec((1, 8, 8), 17), Categories(17), 64, ("nats/image", "bits/dim")),
        (DataSpec((3, 8, 8), 256), Categories(512), 0, ("nats/image", "nats/token")),
        (DataSpec((3, 8, 8), 256), Vectors(4), 0, ("nats/image", "nats/latent dimension")),
        (DataSpec((1, 1, 9), 2, **TEXT), Categories(2), 9, ("nats/window", "bits/character")),
        (DataSpec((1, 1, 9), 3, end=2, **TEXT), Categories(3), 9, ("nats/document", "bits/character")),
        (DataSpec((1, 1, 9), 256, modality="text"), Categories(256), 9, ("nats/window", "bits/byte")),
        (DataSpec((1, 1, 9), 256, modality="audio", rate=8000), Categories(256), 9, ("nats/window", "bits/sample")),
        (DataSpec((1, 1, 9), 2, modality="vector"), Categories(2), 9, ("nats/example", "bits/dim")),
    ],
)
def test_an_example_is_called_what_it_is(spec, token, dimensions, words):
    tokenizer = BareTokens((9,), token)
    tokenizer.dimensions = dimensions
    units = Units.of(spec, tokenizer)
    assert (units.nats, units.per_dimension) == words

"""What tables call an example and its dimensions, by what the data are."""

from __future__ import annotations

import math

import pytest

from mar.core.spec import DataSpec
from mar.core.tokens import Categories, Vectors
from mar.metrics.base import Units
from mar.metrics.nll import nll_tables
from mar.verification.models import BareTokens
from tests.experiments.made import scored

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


def test_subwords_have_a_column_of_bits_per_byte():
    found = {"raster": scored([64 * math.log(2.0) * bits for bits in (3.0, 5.0)])}  # 4 bits a token
    for size, heads in ((0.0, set()), (2.5, {"bits/byte"})):
        units = Units("window", "bits/token", "token", size)
        (table,) = nll_tables(found, {}, None, "", units)
        assert {column.title for column in table.columns} & {"bits/byte"} == heads
    assert table.column("bits/byte").value(table.rows[0]) == pytest.approx(4.0 / 2.5)

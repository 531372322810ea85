"""Names are refused without torch: what the source says equals what the classes say."""

from __future__ import annotations

import dataclasses

import pytest

from mar.cli import names
from mar.data import DATA
from mar.experiments.grid import GridFile
from mar.heads import HEADS
from mar.metrics import METRICS
from mar.networks import NETWORKS
from mar.tokenizers import TOKENIZERS

FAMILIES = {"mar.data": DATA, "mar.tokenizers": TOKENIZERS, "mar.networks": NETWORKS, "mar.heads": HEADS}


@pytest.mark.parametrize("module", FAMILIES)
def test_the_source_names_every_kind_and_every_option(module):
    ours = names.kinds(module)
    assert list(ours) == list(FAMILIES[module])
    for kind, cls in FAMILIES[module].items():
        assert sorted(names.options(module, ours[kind])) == sorted(f.name for f in dataclasses.fields(cls.Options))


def test_the_source_names_every_key_of_a_grid():
    assert set(names.fields("mar.experiments.grid", "GridFile")) == set(GridFile.model_fields) - set(METRICS)
    assert list(names.kinds("mar.metrics")) == list(METRICS)

"""Names are refused without torch: what the source says equals what the classes say."""

from __future__ import annotations

import dataclasses

import pytest

from mar.cli import names
from mar.cli.names import check_grid_keys
from mar.core.errors import UserError
from mar.data import DATA
from mar.experiments.grid import GridFile
from mar.experiments.shipped import extended, grid_names, grid_path
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


@pytest.mark.parametrize("grid", grid_names())
def test_every_axis_of_a_shipped_grid_takes_other_values(grid):
    path = grid_path(grid)
    for axis in extended(path).get("axes") or {}:
        check_grid_keys(path, [f"{axis}=[1]", f"{axis}+=[1]"])
    with pytest.raises(UserError, match="unknown grid or recipe key 'maks'"):
        check_grid_keys(path, ["maks=[1]"])

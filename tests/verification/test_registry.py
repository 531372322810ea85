"""The contract tests over the registry: each component, then models that cover every pair of components."""

from __future__ import annotations

import itertools
import json

import pytest

from mar.heads import HEADS
from mar.heads.categorical import CategoricalHead
from mar.networks import NETWORKS, base
from mar.verification import registry
from mar.verification.models import verify_network_in_model
from mar.verification.networks import verify_network
from mar.verification.orderings import verify_ordering
from mar.verification.registry import verify
from orderings import ABSENT, GIVEN, ORDERINGS, PARTITIONS
from orderings.user import File

CELLS = registry.pairwise_cells()


def failures(verdicts):
    return [verdict for verdict in verdicts if not verdict.passed]


@pytest.mark.parametrize("name", sorted(ORDERINGS.keys() - {"file"}))
def test_an_ordering_keeps_its_contract(name):
    assert failures(verify(ORDERINGS[name])) == []


def test_an_order_from_a_file_keeps_the_contract(tmp_path):
    path = tmp_path / "order.json"
    path.write_text(json.dumps({"positions": [3, 0, 2, 1, 6, 5, 4]}))
    assert failures(verify_ordering(File(str(path)), "file")) == []


@pytest.mark.parametrize("name", sorted(PARTITIONS.keys() - {"optimal"}))
def test_a_partition_keeps_its_contract(name):
    assert failures(verify(PARTITIONS[name])) == []


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_keeps_its_contract(name):
    assert failures(verify_network(NETWORKS[name], name)) == []


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_makes_a_distribution_that_the_sampler_draws_from(name):
    assert failures(verify_network_in_model(NETWORKS[name], CategoricalHead, name)) == []


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_head_keeps_its_contract(name):
    assert failures(verify(HEADS[name])) == []


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_pairs_of_components_make_a_distribution_that_the_sampler_draws_from(cell):
    assert failures(registry.verify_cell(cell)) == []


@pytest.mark.slow
@pytest.mark.parametrize("ordering, partition", itertools.product(*registry.factors()[:2]))
def test_every_combination_of_components_makes_a_distribution_that_the_sampler_draws_from(ordering, partition):
    cells = [cell for cell in registry.product() if (cell.ordering, cell.partition) == (ordering, partition)]
    assert failures(verdict for cell in cells for verdict in registry.verify_cell(cell)) == []


def test_the_cells_cover_every_pair_that_can_meet():
    met = set()
    for cell in registry.product():
        met |= set(itertools.combinations(enumerate(cell), 2))
    covered = set()
    for cell in CELLS:
        covered |= set(itertools.combinations(enumerate(cell), 2))
    assert covered == met
    assert len(CELLS) < len(list(registry.product())) / 2


def test_only_an_order_without_its_file_is_in_no_cell():
    for factor, values in enumerate(registry.factors()):
        assert set(values) - {cell[factor] for cell in CELLS} <= {"file", "optimal"}


def test_networks_and_plans_mark_given_and_absent_tokens_alike():
    assert (base.GIVEN, base.ABSENT) == (GIVEN, ABSENT)

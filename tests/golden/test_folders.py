"""Folders that revision 7eb5ad5 wrote are read, recognised as finished, and gone on with."""

from __future__ import annotations

import pytest

from tests.golden.close import differences
from tests.golden.conftest import recorded


def test_a_run_scores_as_then_with_the_set_costs_of_then(golden):
    old, new = golden("folders", "run scores")
    assert not differences(old, new)


def test_a_run_goes_on_with_the_losses_of_the_whole_run_and_keeps_its_scores(golden):
    _, new = golden("folders", "run goes on")
    assert not differences(recorded("whole")["run"], new["metrics"])
    assert new["changed scores"] == []


def test_a_run_that_went_on_scores_as_then(golden):
    old, new = golden("folders", "run goes on")
    assert not differences(old["scored"], new["scored"])


def test_a_finished_store_is_left_alone(golden):
    _, new = golden("folders", "store is finished")
    assert new == {"shards": 2, "changed": []}


def test_a_store_grows_by_the_same_images(golden):
    old, new = golden("folders", "store grows")
    assert new == old and new["changed"] == ["store/00000016.safetensors"] and len(new["images"]) == 24


def test_a_tokenizers_training_goes_on(golden):
    old, new = golden("folders", "tokenizer goes on")
    assert not differences(old, new)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_cache_is_recognised_as_finished(kind, golden):
    _, new = golden("folders", f"cache {kind} is finished")
    assert new["changed"] == [] and new["shards"] == 4


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_cache_trains_as_then(kind, golden):
    old, new = golden("folders", f"cache {kind} trains")
    assert not differences(old, new)


def test_a_finished_ablation_computes_nothing_anew_and_writes_the_same_table(golden):
    old, new = golden("folders", "ablation is finished")
    assert new["changed"] == [] and new["records"] == old["records"] == 5
    assert not differences(new["before"], new["after"])

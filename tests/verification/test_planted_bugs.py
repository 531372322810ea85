"""Verification must catch what it is for: each part here has one bug, and the claim that it breaks must fail.

The parts that the bugs are planted in must pass.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import mar.verification.heads as densities
import mar.verification.heads as heads
import mar.verification.models as models
import mar.verification.networks as networks
import mar.verification.orderings as orders
from mar.cli.main import app
from mar.core.errors import UserError
from mar.heads.categorical import CategoricalHead
from mar.verification.registry import load, verify
from tests.helpers import Cached, OnePass, StepByStep
from tests.verification import planted_heads, planted_networks, planted_plans

CAUGHT = [
    (planted_networks.OffByOneMask, {networks.no_leak, models.sums_to_one, models.sampler_agrees}),
    (planted_networks.OneStepBehind, {networks.depends_on_the_past}),
    (planted_networks.RasterWhateverThePlan, {networks.no_leak, networks.cached_equals_uncached}),
    (planted_networks.FirstRowsPlan, {networks.no_leak, networks.batch_invariant}),
    (planted_networks.ShiftedPosition, {networks.no_leak, models.sampler_agrees}),
    (planted_networks.PaddingIsKnown, {networks.no_leak}),
    (planted_networks.NormalisedOverAll, {networks.no_leak, models.sums_to_one}),
    (planted_networks.NormalisedOverBatch, {networks.batch_invariant, models.generation_is_keyed}),
    (planted_networks.ColumnMajor, {networks.row_major, networks.batch_invariant, models.likelihood_is_keyed}),
    (planted_networks.Deaf, {networks.depends_on_the_past}),
    (planted_networks.CacheBehind, {networks.cached_equals_uncached, models.sampler_agrees}),
    (planted_networks.RefusesEverything, {networks.accepts_a_plan}),
    (planted_networks.NotANumber, {networks.output_shape}),
    (planted_heads.IgnoresTemperature, {heads.temperature_agrees}),
    (planted_heads.SharperSamples, {heads.sampler_agrees}),
    (planted_heads.OneDrawForAll, {heads.draws_are_keyed}),
    (planted_heads.NotNormalised, {heads.sums_to_one}),
    (planted_heads.MeanLoss, {heads.losses}),
    (planted_heads.EntropyInBits, {heads.entropy_agrees}),
    (planted_heads.BoundAbove, {densities.bound_is_below}),
    (planted_heads.ForgetsTheScale, {densities.integrates_to_one}),
    (planted_heads.WideSamples, {densities.sampler_agrees_with_density}),
    (planted_plans.NoPermutation, {orders.is_permutation}),
    (planted_plans.SortedWithNeighbours, {orders.rows_are_independent}),
    (planted_plans.SecretlyRandom, {orders.is_seeded}),
    (planted_plans.Unseeded, {orders.is_seeded}),
    (planted_plans.EmptyStep, {orders.covers}),
    (planted_plans.EmptySet, {orders.sizes_add_up}),
    (planted_plans.LosesTheRemainder, {orders.sizes_add_up, orders.covers}),
    (planted_plans.GeneratesPadding, {orders.passes_marks_through}),
]


@pytest.mark.parametrize("part, claims", CAUGHT, ids=[part.__name__ for part, _ in CAUGHT])
def test_a_planted_bug_breaks_the_claims_about_it(part, claims):
    of_network = claims <= set(networks.CLAIMS)  # the claims about a model that holds it are tested for the others
    found = networks.verify_network(part, part.__name__) if of_network else verify(part)
    broken = {verdict.claim for verdict in found if not verdict.passed}
    assert {claim.text for claim in claims} <= broken


@pytest.mark.parametrize("part", [OnePass, StepByStep, Cached, CategoricalHead, planted_heads.Gaussian])
def test_parts_without_a_bug_pass_every_claim(part):
    assert [verdict for verdict in verify(part) if not verdict.passed] == []


FILE = Path(planted_plans.__file__)


def test_the_command_says_what_broke_and_exits_with_1():
    result = CliRunner().invoke(app, ["verify", f"{FILE}:EmptySet"])
    assert result.exit_code == 1
    assert orders.sizes_add_up.text in result.output.replace("\n", " ")
    assert "empty set" in result.output.replace("\n", " ")


def test_the_command_exits_with_0_when_all_claims_hold():
    result = CliRunner().invoke(app, ["verify", "orderings.scans:Raster", "mar.heads.categorical:CategoricalHead"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "target, message",
    [
        ("nowhere.py:Thing", "no file 'nowhere.py'"),
        ("no.such.module:Thing", "no module 'no.such.module'"),
        ("Thing", "write FILE.py:Class"),
        (f"{FILE}:EmptyStap", "did you mean 'EmptyStep'"),
        (f"{FILE}:Grid", "subclass the one that it is"),
    ],
)
def test_a_bad_target_is_an_error_that_says_what_to_write(target, message):
    with pytest.raises(UserError, match=message):
        load(target)

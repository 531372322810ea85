"""Verification must catch what it is for: each part here has one bug, and the claim that it breaks must fail.

The parts that the bugs are planted in must pass.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import mar.verification.heads as heads
import mar.verification.models as models
import mar.verification.networks as networks
import mar.verification.orderings as orders
from mar.cli import app
from mar.errors import UserError
from mar.heads.categorical import CategoricalHead
from mar.verification.targets import load
from mar.verify import verify
from tests.contracts import planted
from tests.helpers import Cached, OnePass, StepByStep

CAUGHT = [
    (planted.OffByOneMask, {networks.no_leak, models.sums_to_one, models.sampler_agrees}),
    (planted.OneStepBehind, {networks.depends_on_the_past}),
    (planted.RasterWhateverThePlan, {networks.no_leak, networks.cached_equals_uncached}),
    (planted.FirstRowsPlan, {networks.no_leak, networks.batch_invariant}),
    (planted.ShiftedPosition, {networks.no_leak, models.sampler_agrees}),
    (planted.PaddingIsKnown, {networks.no_leak}),
    (planted.NormalisedOverAll, {networks.no_leak, models.sums_to_one}),
    (planted.NormalisedOverBatch, {networks.batch_invariant, models.generation_is_keyed}),
    (planted.ColumnMajor, {networks.row_major, networks.batch_invariant, models.likelihood_is_keyed}),
    (planted.Deaf, {networks.depends_on_the_past}),
    (planted.CacheBehind, {networks.cached_equals_uncached, models.sampler_agrees}),
    (planted.RefusesEverything, {networks.accepts_a_plan}),
    (planted.NotANumber, {networks.output_shape}),
    (planted.IgnoresTemperature, {heads.temperature_agrees}),
    (planted.SharperSamples, {heads.sampler_agrees}),
    (planted.OneDrawForAll, {heads.draws_are_keyed}),
    (planted.NotNormalised, {heads.sums_to_one}),
    (planted.MeanLoss, {heads.losses}),
    (planted.EntropyInBits, {heads.entropy_agrees}),
    (planted.BoundAbove, {heads.bound_is_below}),
    (planted.ForgetsTheScale, {heads.integrates_to_one}),
    (planted.WideSamples, {heads.sampler_agrees_with_density}),
    (planted.NoPermutation, {orders.is_permutation}),
    (planted.SortedWithNeighbours, {orders.rows_are_independent}),
    (planted.SecretlyRandom, {orders.is_seeded}),
    (planted.Unseeded, {orders.is_seeded}),
    (planted.EmptyStep, {orders.covers}),
    (planted.EmptySet, {orders.sizes_add_up}),
    (planted.LosesTheRemainder, {orders.sizes_add_up, orders.covers}),
    (planted.GeneratesPadding, {orders.passes_marks_through}),
]


@pytest.mark.parametrize("part, claims", CAUGHT, ids=[part.__name__ for part, _ in CAUGHT])
def test_a_planted_bug_breaks_the_claims_about_it(part, claims):
    broken = {verdict.claim for verdict in verify(part) if not verdict.passed}
    assert {claim.text for claim in claims} <= broken


@pytest.mark.parametrize("part", [OnePass, StepByStep, Cached, CategoricalHead, planted.Gaussian])
def test_parts_without_a_bug_pass_every_claim(part):
    assert [verdict for verdict in verify(part) if not verdict.passed] == []


FILE = Path(planted.__file__)


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
        (f"{FILE}:Noise", "subclass the one that it is"),
    ],
)
def test_a_bad_target_is_an_error_that_says_what_to_write(target, message):
    with pytest.raises(UserError, match=message):
        load(target)

"""A verdict within a minute: one network, three orderings; train, sample, score, one cell of an ablation, help."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mar.networks.masked_transformer import MaskedTransformer
from mar.verification.registry import verify
from orderings import ORDERINGS
from tests.cli.test_main import TINY, in_process

pytestmark = pytest.mark.smoke

GRID = f"""
recipe: digits
overrides: {json.dumps([*TINY, "train.sample_every=0"])}
orderings: [raster]
partitions: [equal:16]
nll: {{images: 16}}
fid: null
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("smoke") / "run"
    in_process("train", "digits", *TINY, "train.sample_every=0", "--out", str(folder))
    return folder


def test_help_names_the_commands():
    said = in_process("--help")
    assert all(command in said for command in ("train", "sample", "score", "ablate"))


@pytest.mark.parametrize("name", ["raster", "spiral", "random"])
def test_an_ordering_keeps_its_contract(name):
    assert all(verdict.passed for verdict in verify(ORDERINGS[name]))


def test_a_network_keeps_its_contract():
    assert all(verdict.passed for verdict in verify(MaskedTransformer))


def test_training_logs_a_finite_loss(run):
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([line["loss_nats_per_token"] for line in logged if "loss_nats_per_token" in line]).all()


def test_samples_are_digits_of_the_right_shape(run, tmp_path):
    in_process("sample", str(run), "-n", "3", "--plan", "spiral/equal:16", "--no-gif", "--out", str(tmp_path))
    assert np.load(tmp_path / "images.npz")["images"].shape == (3, 1, 8, 8)


def test_a_plan_is_scored(run):
    in_process("score", "nll", str(run), "--plans", "raster/equal:16", "-n", "8")
    record = json.loads((run / "scores" / "nll-raster-equal16-test-n8-exact.json").read_text())
    assert 0 < record["nats_per_image"] < 64 * 2 * np.log(17)


def test_a_cell_is_trained_and_scored(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    in_process("ablate", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "out"))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(result["rows"]) == 1 and not result["rows"][0]["errors"]

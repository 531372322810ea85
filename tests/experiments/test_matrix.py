"""The train-order × eval-order matrix: closed-form cells, pairing with the diagonal, refusals, and every form of it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from mar import build, config
from mar.cli.main import app
from mar.cli.score import matrix as score_runs
from mar.core.errors import UserError
from mar.experiments.result import AblationResult, Row
from mar.likelihood.summary import Likelihood
from mar.metrics.nll import check_comparable, run_names
from mar.metrics.statistics import holm, paired_differences
from mar.networks.base import Network
from mar.reports.matrix import data_table, is_own, markdown, matrix_tables, score_matrix, write_matrix
from mar.run import Run, load, train
from orderings import UnknownName
from tests.training.conftest import TINY

PLANS = ("raster", "spiral", "random")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three tiny runs: two fixed orders trained along their own plans, one random."""
    out = tmp_path_factory.mktemp("runs")
    for name, ratio in (("raster", "plan"), ("spiral", "plan"), ("random", "uniform")):
        overrides = [*TINY, f"ordering={name}", f"train.mask_ratio={ratio}", "train.iterations=4"]
        train(config.read("digits", overrides), out / name)
    return [out / name for name in ("raster", "spiral", "random")]


@pytest.fixture(scope="module")
def runs(folders: list[Path]) -> dict[str, Run]:
    return run_names([load(folder) for folder in folders])


def row_of(matrix: AblationResult, name: str) -> dict[str, Row]:
    return {row.plan: row for row in matrix.rows if row.model == name}


@pytest.fixture(scope="module")
def matrix(runs: dict[str, Run]) -> AblationResult:
    return score_matrix(runs, PLANS, lambda name, run, plan: run.nll(plan=plan, limit=12), confidence=0.9)


def made_up(nats_N: np.ndarray, plan: str) -> Likelihood:
    mean = float(nats_N.mean())
    return Likelihood(
        plan, "exact", len(nats_N), mean, 1.0, mean / 44.0, 0.01, 64, 1, 64.0, (), (), (), (), tuple(nats_N.tolist())
    )


def test_every_cell_is_what_scoring_that_run_along_that_plan_gives(runs, matrix):
    assert [model.name for model in matrix.models] == list(runs)
    for name, run in runs.items():
        row = row_of(matrix, name)
        assert tuple(row) == PLANS
        alone = {plan: run.nll(plan=plan, limit=12) for plan in PLANS}
        assert {plan: cell.likelihood for plan, cell in row.items()} == alone
        own = paired_differences(alone, name, 0.9)
        assert row[name].difference is None
        for plan in set(PLANS) - {name}:
            assert replace(own[plan], p_holm=0.0) == replace(row[plan].difference, p_holm=0.0)


def test_holms_correction_covers_the_whole_table(matrix):
    differences = [cell.difference for cell in matrix.rows if cell.difference is not None]
    assert len(differences) == 6
    assert [d.p_holm for d in differences] == pytest.approx(holm([d.p_value for d in differences]))


def test_differences_are_paired_with_the_diagonal(runs):
    """Images differ by 50 nats, columns by exactly 1 and 2: paired, the differences have no spread at all."""
    image_N = np.round(np.random.RandomState(0).normal(150.0, 50.0, 40))
    shift = {"raster": 0.0, "spiral": 1.0, "random": 2.0}
    found = score_matrix(runs, PLANS, lambda name, run, plan: made_up(image_N + shift[plan], plan))
    for cell in found.rows:
        if cell.difference is not None:
            expected = shift[cell.plan] - shift[cell.model]
            assert cell.difference.nats_per_image == expected
            assert cell.difference.interval_nats == (expected, expected)
            assert cell.difference.reference == cell.model


def test_own_plans_are_always_columns(runs):
    def columns(plans: list[str]) -> list[str]:
        found = score_matrix(runs, plans, lambda name, run, plan: made_up(np.arange(1.0, 9.0), plan))
        return list(row_of(found, "random"))

    assert columns([]) == ["raster", "spiral", "random"]
    assert columns(["hilbert", "random/singles"]) == ["hilbert", "random", "raster", "spiral"]
    with pytest.raises(UnknownName, match="did you mean 'raster'"):
        columns(["rastr"])


def test_runs_that_do_not_belong_in_one_table_are_refused(runs, folders):
    def never(name: str, run: Run, plan: str) -> Likelihood:
        raise AssertionError("nothing is scored before the check")

    base = runs["raster"]
    other_data = SimpleNamespace(
        model=base.model, data=replace(base.data, fingerprint="0" * 64), training_plan="raster", ema=True
    )
    with pytest.raises(UserError, match="same examples in the same splits"):
        score_matrix({"raster": base, "other": other_data}, PLANS, never)  # pyright: ignore[reportArgumentType]
    recipe = config.read("digits", [*TINY, "tokenizer=patches", "head=diffusion", "head.width=16"])
    bound = SimpleNamespace(model=build.assemble(recipe, base.data).model, data=base.data)
    with pytest.raises(UserError, match="exact, that of patches bound"):
        check_comparable({"raster": base, "patches": bound}, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="is there twice"):
        run_names([base, load(folders[0])])


def test_a_fixed_order_with_a_suffix_loss_is_pointed_out(runs, matrix):
    assert not any("no NLL" in note for note in matrix.grid["notes"])
    raster = runs["raster"]
    suffix = load(raster.folder.path)
    suffix.recipe = config.parse(raster.recipe.as_dict(), ["train.mask_ratio=uniform"])
    image_N = np.arange(1.0, 9.0)
    found = score_matrix({"suffix": suffix}, [], lambda name, run, plan: made_up(image_N, plan))
    assert any("is no NLL of raster" in note for note in matrix_tables(found)[1].notes)


def test_the_result_is_read_back_as_it_was_written(matrix, tmp_path):
    paths = write_matrix(matrix, tmp_path)
    assert [path.name for path in paths] == ["matrix.json", "matrix.csv", "matrix.md", "matrix.png"]
    assert AblationResult.load(paths[0]) == matrix
    assert json.loads(paths[0].read_text())["data_fingerprint"] == matrix.data_fingerprint
    with Image.open(paths[3]) as picture:
        assert min(picture.size) > 300


def test_tables_hold_every_cell(matrix):
    lines = list(csv.DictReader(io.StringIO(data_table(matrix).csv())))
    for line, cell in zip(lines, matrix.rows, strict=True):
        assert (line["run"], line["trained_along"], line["scored_along"]) == (cell.model, cell.model, cell.plan)
        assert float(line["bits_per_dim"]) == cell.likelihood.bits_per_dim
        assert (line["p_holm"] == "") == (cell.difference is None)
    shown = markdown(matrix)
    for cell in matrix.rows:
        assert f"{cell.likelihood.bits_per_dim:.3f} ± {cell.likelihood.standard_error_bits_per_dim:.3f}" in shown
    assert sum("its own plan" in line for line in shown.splitlines()) == 3 + 1  # a row each, and the heading
    assert "90 % bootstrap interval" in shown and sum(map(is_own, matrix.rows)) == 3


def test_the_command_writes_beside_the_runs(folders):
    two = [str(folder) for folder in folders[:2]]
    done = CliRunner().invoke(app, ["score", "matrix", *two, "--plans", "raster", "-n", "4"])
    assert done.exit_code == 0, done.output
    out = folders[0].parent / "matrix"
    found = AblationResult.load(out / "matrix.json")
    assert [row.plan for row in found.rows] == ["raster", "spiral"] * 2
    assert found.rows[0].likelihood.n_images == 4 and "matrix.png" in done.output


def test_what_makes_no_table_is_refused(folders):
    done = CliRunner().invoke(app, ["score", "matrix", *map(str, folders), "--partitions", "cosine:4"])
    assert isinstance(done.exception, UserError) and "take --plans" in str(done.exception)


def test_an_interrupted_command_goes_on_and_computes_nothing_twice(folders, tmp_path, monkeypatch):
    passes, asked = [], {"plans": ",".join(PLANS), "n": 3}

    def counted(network: Network, *arguments):
        passes.append(network)
        if len(passes) == stop:
            raise KeyboardInterrupt
        return nn.Module.__call__(network, *arguments)

    monkeypatch.setattr(Network, "__call__", counted)
    stop = 4  # of the six cells, a pass each
    with pytest.raises(KeyboardInterrupt):
        score_runs(folders[:2], **asked, out=tmp_path)
    assert not (tmp_path / "matrix.json").exists()
    stop = 0
    score_runs(folders[:2], **asked, out=tmp_path)
    assert len(passes) == 6 + 1
    first = AblationResult.load(tmp_path / "matrix.json")
    score_runs(folders, **asked, out=tmp_path)
    assert len(passes) == 6 + 1 + 3
    assert [cell.likelihood for cell in AblationResult.load(tmp_path / "matrix.json").rows[:6]] == [
        cell.likelihood for cell in first.rows
    ]
    score_runs(folders, **asked, last_weights=True, out=tmp_path)
    assert len(passes) == 6 + 1 + 3 + 9  # other weights are another question

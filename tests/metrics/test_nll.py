"""``mar score nll`` on a run trained for four iterations: records, pictures, resuming, refusals."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mar import config
from mar.cli.main import app
from mar.cli.options import plan_product
from mar.cli.score import print_nll as scored
from mar.cli.score import print_paired
from mar.core.errors import Unsupported, UserError
from mar.likelihood import estimate
from mar.likelihood.estimate import Estimator, Repeats
from mar.metrics.nll import NllRequest, code_identity
from mar.run import Run, load, train
from tests.cli.test_main import TINY

PIXELS = ["tokenizer=patches", "tokenizer.patch=4", "head=gaussian-mixture"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("run"), *PIXELS)


def trained(folder: Path, *overrides: str) -> Run:
    train(config.read("digits", [*TINY, "train.sample_every=0", "train.validate_every=0", *overrides]), folder)
    return load(folder)


def records(run: Run) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in (run.folder.path / "scores").glob("nll-*.json")}


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest):
    yield
    for name in {"run", "continuous"} & set(request.fixturenames):
        shutil.rmtree(request.getfixturevalue(name).folder.path / "scores", ignore_errors=True)


def test_plans_are_scored_paired_and_drawn(run, capsys):
    plans = plan_product("raster,random", "linear:4,cosine:8", "")
    scored(run, NllRequest(tuple(plans), "raster/linear:4", n=6))
    found = records(run)
    assert sorted(found) == [f"nll-{p}-test-n6-exact.json" for p in (
        "random-cosine8", "random-linear4", "raster-cosine8", "raster-linear4"
    )]  # fmt: skip
    one = found["nll-random-linear4-test-n6-exact.json"]
    assert one["kind"] == one["head_kind"] == "exact" and one["n_images"] == 6 and one["plan"] == "random/linear:4"
    assert one["paired"]["reference"] == "raster/linear:4" and one["data_fingerprint"] == run.data.fingerprint
    assert len(one["standard_error_per_step"]) == len(one["nats_per_step"]) == 4
    assert len(one["standard_error_per_position"]) == len(one["nats_per_position"]) == 64
    (picture,) = (run.folder.path / "scores").glob("*.png")
    assert len(list((run.folder.path / "scores").rglob("*"))) == 5  # nothing unfinished is left
    assert Image.open(picture).size[1] > 600 and picture.name.startswith("nll-raster-linear4-test-n6-exact+")
    said = capsys.readouterr().out
    assert "random orders: every image has its own" in said and "warning: an unfinished run" not in said


def test_what_was_scored_is_not_scored_again(run, capsys, monkeypatch):
    request = NllRequest(("raster/linear:4",), n=6)
    scored(run, request)
    before = records(run)
    calls = []
    original = Run.nll
    monkeypatch.setattr(Run, "nll", lambda *a, **k: (calls.append(1), original(*a, **k))[1])
    capsys.readouterr()
    scored(run, request)
    assert "scored before" in capsys.readouterr().out and not calls and records(run) == before
    scored(run, NllRequest(("raster/linear:4", "raster/linear:8"), "raster/linear:4", n=6))
    assert len(calls) == 1  # the new plan alone
    for other in ({"again": True}, {"seed": 1}, {"n": 7}, {"estimator": Estimator(2)}, {"split": "validation"}):
        scored(run, replace(request, **other))
    assert len(calls) == 6
    again = records(run)["nll-raster-linear4-test-n6-exact.json"]
    assert again["nats_of_image"] == before["nll-raster-linear4-test-n6-exact.json"]["nats_of_image"]
    assert len(records(run)) == 6  # every setting has its own file


def test_a_killed_ensemble_goes_on(run, monkeypatch):
    request = NllRequest(("raster/linear:4", "random/linear:4"), n=6, repeats=Repeats(orders=4))
    finish, finished = estimate.Partial.finish, []

    def killed(self, name, likelihood):
        finish(self, name, likelihood)
        finished.append(name)
        if finished == ["order0000", "order0001"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(estimate.Partial, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        scored(run, request)
    scored(run, request)
    assert finished == ["order0000", "order0001", "order0002", "order0003"]
    scored(run, replace(request, repeats=Repeats(orders=6)))
    assert finished[4:] == ["order0004", "order0005"]
    found = records(run)
    assert sorted(found) == [
        "nll-random-linear4-test-n6-orders4-exact.json", "nll-random-linear4-test-n6-orders6-exact.json",
        "nll-raster-linear4-test-n6-exact.json",
    ]  # fmt: skip
    (kept,) = (run.folder.path / "scores" / "repeats").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == [f"order{s:04d}.safetensors" for s in range(6)]
    points = found["nll-random-linear4-test-n6-orders6-exact.json"]["ensemble"]
    assert [p["orders"] for p in points] == [1, 2, 4, 6]
    fewer = found["nll-random-linear4-test-n6-orders4-exact.json"]["ensemble"]
    assert [p["nats_per_image"] for p in fewer] == [p["nats_per_image"] for p in points[:3]]


def test_sub_sampled_steps_are_recorded_as_an_estimate_and_paired(run):
    plans = ("raster/linear:16", "random/linear:16", "random/linear:4")
    scored(run, NllRequest(plans, "raster/linear:16", n=8, estimator=Estimator(5)))
    one = records(run)["nll-random-linear16-test-n8-steps5-estimate.json"]
    assert (one["kind"], one["head_kind"], one["estimator"]) == ("estimate", "exact", "steps:5")
    assert one["forward_rows_per_image"] == 5.0 and one["paired"]["n_images"] == 8
    assert records(run)["nll-random-linear4-test-n8-exact.json"]["paired"]  # exact beside an estimate of exact


def test_images_are_scored_until_the_standard_error_is_the_wanted_one(run, capsys):
    scored(run, NllRequest(("random/linear:32",), target="0.7nats"))
    found = records(run)
    first, record = (pick(found.values(), key=lambda r: r["n_images"]) for pick in (min, max))
    target = record["target"]
    assert target["wanted"] == "0.7nats" and target["reached"] and target["looks"][-1] == record["n_images"] > 32
    assert record["standard_error_nats"] <= 0.7 < first["standard_error_nats"] and first["n_images"] == 32
    assert "reached, 0.7nats wanted" in capsys.readouterr().out
    scored(run, NllRequest(("lowest-entropy/linear:4",), target="0.001nats", n=40))
    assert "with all images there are" in capsys.readouterr().out
    with pytest.raises(UserError, match="leave out --orders"):
        NllRequest(("random",), target="3nats", repeats=Repeats(orders=2))
    with pytest.raises(UserError, match="at least 2 images"):
        scored(run, NllRequest(("random",), n=1, target="3nats"))


def test_draws_bound_the_integer_pixels_more_tightly(continuous, capsys):
    for draws in (1, 4):
        scored(continuous, NllRequest(("raster/linear:2",), n=24, repeats=Repeats(draws=draws)))
    found = records(continuous)
    one, four = (found[f"nll-raster-linear2-test-n24-{d}exact.json"] for d in ("", "draws4-"))
    assert (one["dequantisation_draws"], four["dequantisation_draws"]) == (1, 4)
    assert four["nats_per_image"] < one["nats_per_image"]
    said = " ".join(capsys.readouterr().out.split())
    assert "uniform dequantisation" in said and "bound (exact of" in said


def test_control_variates_have_a_column_and_a_record_of_their_own(run, capsys):
    scored(run, NllRequest(("raster/linear:2",), n=40, control=True))
    record = records(run)["nll-raster-linear2-test-n40-control-variates-exact.json"]
    again = run.nll(plan="raster/linear:2", limit=40, control="test").controlled
    assert record["controlled"]["nats_per_image"] == pytest.approx(again.nats_per_image) and again.n_all == 360
    assert again.bits_per_dim == pytest.approx(again.nats_per_image / 64 / math.log(2))
    assert "controlled" in capsys.readouterr().out
    with pytest.raises(UserError, match="at least 28 images"):
        scored(run, NllRequest(("raster/linear:2",), n=10, control=True))


def test_requests_that_make_no_sense_are_refused(run):
    with pytest.raises(UserError, match="raster have one order each"):
        scored(run, NllRequest(("raster",), repeats=Repeats(orders=2), n=4))
    with pytest.raises(UserError, match="none here"):
        scored(run, NllRequest(("raster",), repeats=Repeats(draws=2), n=4))
    with pytest.raises(UserError, match="scoring option of CategoricalHead"):
        scored(run, NllRequest(("raster/linear:2",), likelihood={"tolerance": 1}, n=4))
    with pytest.raises(Unsupported, match="choose exact"):
        scored(run, NllRequest(("raster/linear:2",), kind="ode", n=4))
    assert not (run.folder.path / "scores").exists()


@pytest.mark.parametrize("plan", ["raster/linear:4", "lowest-entropy/linear:4"])
def test_a_network_in_bfloat16_is_recorded_and_close(run, plan):
    for precision in ("fp32", "bf16"):
        scored(run, NllRequest((plan,), n=6, precision=precision))
    full, half = (record for _, record in sorted(records(run).items(), key=lambda item: item[1]["precision"] != "fp32"))
    assert (full["precision"], half["precision"]) == ("fp32", "bf16")
    assert half["nats_of_image"] != full["nats_of_image"]
    close = 3e-3 if "raster" in plan else 3e-2  # nearly equal entropies may change places
    assert half["nats_of_image"] == pytest.approx(full["nats_of_image"], rel=close)


def test_adaptive_orders_are_plans(run):
    scored(run, NllRequest(("lowest-entropy/linear:4",), n=4))
    assert records(run)["nll-lowest-entropy-linear4-test-n4-exact.json"]["steps"] == 4


@pytest.mark.parametrize("mode", ["nll", "sets", "exposure"])
def test_a_folder_that_takes_no_record_is_told_before_anything_is_scored(run, monkeypatch, mode):
    (run.folder.path / "scores").write_text("in the way")
    monkeypatch.setattr(Run, "nll", lambda *_, **__: pytest.fail("scored"))
    result = CliRunner().invoke(app, ["score", mode, str(run.folder.path), "--plans", "raster"])
    assert isinstance(result.exception, UserError) and "cannot write" in str(result.exception)
    (run.folder.path / "scores").unlink()


@pytest.mark.parametrize("revision", ["0123456789ab-dirty", "unknown"])
def test_changed_code_asks_another_question(tmp_path, revision):
    seen = []
    for text in ("x = 1", "x = 2", "x = 1"):
        (tmp_path / "a.py").write_text(text)
        made_by = {"packages": {"mar-orderings": "1"}, "revision": revision}
        seen.append(code_identity(made_by, (tmp_path,)))
    assert seen[0] == seen[2] != seen[1]
    made_by = {"packages": {"mar-orderings": "1"}, "revision": "0123456789ab"}
    assert code_identity(made_by, (tmp_path,)) == ["1", "0123456789ab"]  # a revision identifies the code


def test_two_runs_are_compared_image_by_image(run, tmp_path, capsys):
    other = trained(tmp_path / "other", "seed=1")
    print_paired([run, other], [NllRequest(("raster/linear:4", "random/linear:4"), n=6)] * 2)
    (mine,), (theirs,) = (
        [r for r in records(each).values() if r["plan"] == "raster/linear:4"] for each in (run, other)
    )
    said = capsys.readouterr().out
    mean = sum(b - a for a, b in zip(mine["nats_of_image"], theirs["nats_of_image"], strict=True)) / 6
    assert f"{mean:+.2f} [" in said and f"− {run.folder.path.name}" in said
    with pytest.raises(UserError, match="is there twice"):
        print_paired([run, run], [NllRequest(("raster/linear:4",), n=6)] * 2)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("runs/none --nll --orders 4", "mar score nll runs/none --orders 4"),
        ("a b --matrix", "mar score matrix a b"),
        ("runs/none", "mar score nll|fid|sets|exposure|consistency|matrix runs/none"),
        ("nll a b", "2 runs"),
    ],
)
def test_an_old_spelling_is_refused_with_the_new_one(asked, said):
    result = CliRunner().invoke(app, ["score", *asked.split()])
    assert isinstance(result.exception, UserError) and said in str(result.exception)

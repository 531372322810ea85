"""From a run to stores and scores: the same for any number of processes, batch size and interruption."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from mar import config
from mar.cli.fid import print_fid
from mar.core.errors import UserError
from mar.metrics.fid import FID, sample_images
from mar.metrics.generated import (
    FidRequest,
    axes_of,
    parse_axis,
    parse_compared,
    parse_values,
    score_run,
    score_source,
    to_text,
)
from mar.metrics.images import FeatureSettings
from mar.metrics.samples import Setting, fill, question
from mar.metrics.store import Store
from mar.run import Run, train
from tests import synthetic

PLAN = "random/cosine:4"
TINY = [
    "network.encoder_width=16", "network.encoder_depth=1", "network.encoder_heads=2", "network.decoder_width=16",
    "network.decoder_depth=1", "network.decoder_heads=2", "network.buffer=1", "train.batch_size=16",
    "train.iterations=3", "train.validate_every=0", "train.sample_every=0",
]  # fmt: skip


@dataclass
class Peer:
    """One of ``world`` processes, without the others."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def on_main(self, action):
        return action()

    def broadcast(self, value):
        return value

    def wait(self) -> None:
        pass

    def together(self):
        return nullcontext()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "run"
    train(config.read("digits", TINY), path)
    return path


@pytest.fixture
def run(folder) -> Run:
    return Run(folder)


def images(path, n: int = 100) -> torch.Tensor:
    return Store.open(path).images(n).batch(torch.arange(n))[0]


ALONE = (Peer(),)


def filled(run, path, n: int = 100, peers=ALONE, batch: int = 20, **changes) -> torch.Tensor:
    for peer in peers:
        fill(path, run, Setting(PLAN, **changes), n, peer, batch, 20)
    return images(path, n)


def test_images_do_not_depend_on_processes_or_batches(run, tmp_path):
    one = filled(run, tmp_path / "one")
    assert torch.equal(one, filled(run, tmp_path / "three", peers=[Peer(r, 3) for r in (2, 0, 1)]))
    assert torch.equal(one, run.sample(100, PLAN, batch_size=20)), "and are those of run.sample"
    assert (one != filled(run, tmp_path / "small", batch=7)).float().mean() <= 1e-5
    labels = Store.open(tmp_path / "one").images(100).batch(torch.arange(100))[1]
    assert torch.equal(labels, torch.arange(100) % 10)


@pytest.mark.parametrize("draft", ["jacobi", "the run"])
def test_speculated_images_do_not_depend_on_processes_and_their_passes_are_told(run, draft, tmp_path, capsys):
    setting = Setting("random", speculate=f"{run.folder.path if draft == 'the run' else draft}:16")
    for name, world in (("one", 1), ("two", 2)):
        for rank in range(world):
            fill(tmp_path / name, run, setting, 40, Peer(rank, world), 20, 20)
    assert torch.equal(images(tmp_path / "one", 40), images(tmp_path / "two", 40))
    assert torch.equal(
        images(tmp_path / "one", 40), run.sample(40, "random", speculate=setting.speculate, batch_size=20)
    )
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and all(line.endswith("for 64 tokens") for line in told)
    assert ("draft_weights" in question(run, setting)) == (draft == "the run")
    assert "speculate" not in question(run, Setting(PLAN)), "existing answers stay answers"


def test_a_draft_is_a_run_of_the_same_tokens(run, tmp_path):
    with pytest.raises(UserError, match="the draft is self, jacobi or a run"):
        run.sample(1, "random", speculate="jacob:4")
    train(config.read("digits", [*TINY, "class_conditional=false"]), tmp_path / "other")
    with pytest.raises(UserError, match="drafts other tokens or classes"):
        run.sample(1, "random", speculate=f"{tmp_path / 'other'}:4")


def test_a_store_goes_on_after_a_kill_and_grows(run, tmp_path, monkeypatch):
    write, done = Store.write, []

    def killed(self, shard, *tensors):
        if len(done) == 2:
            raise RuntimeError("killed")
        done.append(shard)
        write(self, shard, *tensors)

    monkeypatch.setattr(Store, "write", killed)
    with pytest.raises(RuntimeError, match="killed"):
        filled(run, tmp_path / "s")
    monkeypatch.setattr(
        Store, "write", lambda self, shard, *tensors: (done.append(shard), write(self, shard, *tensors))
    )
    resumed = filled(run, tmp_path / "s", 90)
    filled(run, tmp_path / "s", 100)
    assert done == [range(20), range(20, 40), range(40, 60), range(60, 80), range(80, 90), range(80, 100)]
    assert torch.equal(resumed, run.sample(90, PLAN, batch_size=20))


def test_another_setting_or_other_weights_are_refused(run, tmp_path):
    filled(run, tmp_path / "s")
    for change in {"guidance": 2.0}, {"head": {"top_k": 3}}, {"temperature": 0.9}:
        with pytest.raises(UserError, match=f"another question .{next(iter(change))}(.top_k)? is"):
            filled(run, tmp_path / "s", **change)
    last = Run(run.folder.path, ema=False)
    with pytest.raises(UserError, match="weights is"):
        filled(last, tmp_path / "s")


def test_classes_asked_for_come_in_turn(run, tmp_path):
    filled(run, tmp_path / "s", classes=(3, 7))
    assert Store.open(tmp_path / "s").images(100).batch(torch.arange(100))[1].tolist() == [3, 7] * 50


def request(**changes) -> FidRequest:
    return FidRequest((Setting(PLAN),), 60, **{"shard": 20, "sweep_images": 40, **changes})


def records(run: Run, pattern: str) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted((run.folder.path / "scores").glob(pattern))]


def test_fid_is_the_same_for_two_processes_and_any_batch_size(run, tmp_path, brief_training, capsys):
    fids = []
    for name, batch, peers in ("a", 20, ALONE), ("b", 20, (Peer(1, 2), Peer(0, 2))), ("c", 7, ALONE):
        filled(run, tmp_path / name, 60, peers, batch)
        print_fid(score_run(run, Peer(), request(store=tmp_path / name, again=True)))
        fids.append(records(run, "fid-random-cosine4-test-n60.json")[0]["generated"]["fid"])
    assert fids[0] == fids[1] == pytest.approx(fids[2], rel=1e-6)
    assert "asked" in capsys.readouterr().out


def test_a_sweep_chooses_the_lowest_fid_and_nothing_is_done_twice(run, brief_training, monkeypatch, capsys):
    asked = request(axes={"guidance": [1.0, 2.0], "top_k": [2, 17]})
    print_fid(score_run(run, Peer(), asked))
    (found,) = records(run, "fid-sweep-guidance-top_k-test-n40-*.json")
    points = found["sweeps"][0]["points"]
    assert len(points) == 4
    best = min(points, key=lambda point: point["fid"])
    assert found["sweeps"][0]["best"] == {"guidance": best["guidance"], "top_k": best["top_k"]}
    scored = [record for record in records(run, "fid-*-n60*.json") if record["head"] == {"top_k": best["top_k"]}]
    assert scored[0]["guidance"] == best["guidance"] and scored[0]["seed"] == 0 != found["seed_added"]
    assert list((run.folder.path / "scores").glob("fid-sweep-*.png"))
    monkeypatch.setattr(Run, "sample", None)  # anything generated again would fail
    score_run(run, Peer(), asked)


@pytest.mark.parametrize(("wrong", "message"), [("top_q=3", "top_k"), ("top_k=some", "top_k: .*integer.*'some'")])
def test_wrong_settings_are_refused_before_anything_is_generated(run, monkeypatch, wrong, message):
    monkeypatch.setattr(Run, "sample", None)
    with pytest.raises(UserError, match=message):
        score_run(run, Peer(), request(seeds=2, compared=("top_k=2", wrong)))
    with pytest.raises(UserError, match=message):
        score_run(run, Peer(), request(axes=dict([parse_axis(f"{wrong},2")]), again=True))


def test_features_that_cannot_be_had_are_said_before_images_are_made(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "sample", None)
    weights = FeatureSettings("inception", tmp_path / "absent.pth")
    with pytest.raises(UserError, match="no file"):
        score_run(run, Peer(), request(features=weights, again=True))


def test_a_cut_record_is_made_again(run, brief_training, capsys):
    score_run(run, Peer(), request())
    (path,) = (run.folder.path / "scores").glob("fid-random-cosine4-test-n60.json")
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:100])
    score_run(run, Peer(), request())
    assert json.loads(path.read_text())["generated"] == whole["generated"]


def test_settings_are_compared_over_the_same_seeds(run, brief_training, capsys):
    score_run(run, Peer(), request(seeds=3, compared=("top_k=17", "top_k=2:guidance=2", "top_k=0")))
    (found,) = records(run, "fid-seeds3-test-n60-*.json")
    full, narrow, same = found["rows"]
    assert full["relative_change"] is None and len(full["fid"]["values"]) == 3
    assert narrow["setting"] == f"{PLAN} guidance=2.0 top_k=2"
    ratios = np.array(narrow["fid"]["values"]) / np.array(full["fid"]["values"]) - 1
    assert narrow["relative_change"]["mean"] == pytest.approx(ratios.mean())
    assert narrow["within"] == (narrow["relative_change"]["interval"][1] < 0.05)
    assert same["fid"] == full["fid"] and same["within"], "all 17 levels are no truncation"


def test_stores_are_scored_against_data_and_statistics(run, tmp_path, brief_training, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    filled(run, tmp_path / "s")
    score_source(str(tmp_path / "s"), 60, "digits", "test", FeatureSettings(), tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["generated"]["n_images"] == 60 and scores["generated"]["balance"]["agreement"] is not None
    with pytest.raises(UserError, match="100 of 900"):
        score_source(str(tmp_path / "s"), 900, "digits", "test", FeatureSettings(), None)
    with pytest.raises(UserError, match="neither statistics"):
        score_source(str(tmp_path / "s"), 60, "nowhere", "test", FeatureSettings(), None)
    with pytest.raises(UserError, match="have shape"):
        score_source(str(tmp_path / "s"), 60, f"{synthetic.__file__}:Synthetic", "test", FeatureSettings(), None)


def test_a_run_is_scored_where_its_own_data_are_not(folder, tmp_path, brief_training, capsys):
    path = shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("scores"))
    recipe = (path / "recipe.yaml").read_text()
    (path / "recipe.yaml").write_text(recipe.replace("data:\n  kind: digits\n", "data:\n  kind: mnist\n").replace(
        "  validation: 72\n", ""))  # fmt: skip
    run = Run(path)
    asked = FidRequest((Setting(PLAN),), n=40, against="digits", features=FeatureSettings("classifier"))
    score_run(run, Peer(), asked)  # type: ignore[arg-type]
    (record,) = (path / "scores").glob("fid-*.json")
    assert json.loads(record.read_text())["data"] == "digits"


def test_ranges_and_settings_are_read_as_written():
    assert parse_axis("guidance=1:2:0.25") == ("guidance", [1.0, 1.25, 1.5, 1.75, 2.0])
    assert parse_axis("solver=ddim,unipc") == ("solver", ["ddim", "unipc"])
    assert parse_values(".9:1.1:.1") == [0.9, 1.0, 1.1] and parse_values("25") == [25]
    axes, single = axes_of(["steps=10,20"], guidance="1:2:1", temperature=".9")
    assert axes == {"steps": [10, 20], "guidance": [1.0, 2.0]} and single == {"guidance": 1.0, "temperature": 0.9}
    with pytest.raises(UserError, match="--guidance is a number"):
        axes_of([], guidance="much")
    for wrong in ("guidance", "guidance=1", "guidance=1:x:2", "guidance=2:1:.5", "guidance=1:2:0"):
        with pytest.raises(UserError):
            parse_axis(wrong)
    found = parse_compared("plan=raster/cosine:16:steps=10:temperature=.9", Setting(PLAN, head={"solver": "ddim"}))
    assert found == Setting("raster/cosine:16", temperature=0.9, head={"solver": "ddim", "steps": 10})
    assert to_text(replace(found, seed=3)) == "raster/cosine:16 temperature=0.9 seed=3 solver=ddim steps=10"
    with pytest.raises(UserError, match="solver=unipc:steps=10"):
        parse_compared("fast", Setting(PLAN))


def test_schedules_are_part_of_a_setting():
    schedules = ["power-cosine:1", "power-cosine:2.75", "linear@0.2-0.8"]
    assert parse_axis(f"guidance_schedule={','.join(schedules)}") == ("guidance_schedule", schedules)
    text = "guidance=4:guidance_schedule=power-cosine:2.75:temperature_schedule=linear:1.1:respacing=10,15,20"
    found = parse_compared(text, Setting(PLAN))
    assert (found.guidance, found.guidance_schedule, found.temperature_schedule, found.head) == (
        4.0, "power-cosine:2.75", "linear:1.1", {"respacing": "10,15,20"}
    )  # fmt: skip
    assert "temperature_schedule=linear:1.1" in to_text(found)
    assert "temperature_schedule" in found.told() and "temperature_schedule" not in Setting(PLAN).told()
    with pytest.raises(UserError, match="a temperature schedule is"):
        parse_compared("temperature_schedule=falling", Setting(PLAN))


@pytest.mark.slow
def test_two_processes_fill_one_store_from_the_command_line(run, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["-m", "mar", "generate", str(run.folder.path), "-n", "100", "--plan", PLAN, "--shard", "20"]
    two = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        *arguments,
        "--out",
        str(tmp_path / "two"),
    ]
    done = subprocess.run(two, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    filled(run, tmp_path / "one")
    assert torch.equal(images(tmp_path / "one"), images(tmp_path / "two"))


def test_samples_are_shown_above_their_nearest_training_images(run, tmp_path):
    plain, near = (FID.Options(images=20, shown=20, animated=2, nearest=nearest) for nearest in (False, True))
    assert "nearest" in near.model_dump() and "nearest" not in plain.model_dump()  # old questions stay what they were
    rows = {}
    for name, options in (("plain", plain), ("near", near)):
        sample_images(run, "raster", options, None, tmp_path / name)
        rows[name] = np.asarray(Image.open(tmp_path / name / "samples.png").convert("L"))
    side = rows["plain"].shape[0] // 2  # two rows of ten images
    assert rows["near"].shape[0] in range(4 * side - 4, 4 * side + 5)
    assert np.array_equal(rows["near"][: side - 2], rows["plain"][: side - 2])

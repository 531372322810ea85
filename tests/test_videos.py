"""A run on videos: its grid knows time, samples are GIFs, and a plan has the NLL of the same order by file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mar import config
from mar.cli.main import app
from mar.run import Run, load, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "video"
    small = ["data.frames=2", "data.size=8", "network.width=8", "network.depth=1", "network.heads=1"]
    brief = ["train.iterations=1", "train.batch_size=4", "train.sample_every=1", "train.validate_every=0"]
    train(config.read("moving-digits", [*small, *brief, "train.schedule.warmup=1"]), folder)
    return load(folder)


def test_a_plan_frame_by_frame_has_the_nll_of_the_same_order_by_file(run: Run, tmp_path: Path) -> None:
    column_P = torch.arange(16).reshape(4, 4).T.flatten()
    later_first_L = torch.cat([16 + column_P, column_P]).tolist()
    (tmp_path / "order.json").write_text(json.dumps({"ranks": later_first_L}))
    ours, same, other = (
        run.nll(plan=plan, limit=8).nats_of_image
        for plan in ("frames:column:outer=reverse", f"file:({tmp_path / 'order.json'})", "column")
    )
    assert ours == same and ours != other
    assert run.nll(plan="frames:column:outer=reverse/frames", limit=8).tokens_per_step == (16, 16)


def test_first_frames_are_kept_and_the_others_generated(run: Run) -> None:
    video, _ = run.data.test.batch(torch.tensor([3]))
    x = run.sample(6, "raster/frames", given=video[0], mask=torch.arange(32) >= 16)
    assert x.shape == (6, 2, 1, 8, 8) and torch.equal(x[:, 0], video[:, 0].expand(6, -1, -1, -1))
    assert len(x[:, 1].flatten(1).unique(dim=0)) == 6


def test_the_commands_write_gifs_of_every_frame_and_a_plot_by_position(run: Run) -> None:
    def invoke(*words: str) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 0, result.output
        return result.output

    folder = run.folder.path
    plan = "frames:spiral:outer=subsample/frames"
    assert "grid.gif, videos.npz, videos/" in invoke(
        "sample", str(folder), "-n", "3", "--plan", plan, "--out", str(folder / "s")
    )
    for file in (folder / "s" / "grid.gif", *folder.glob("samples/training-*.gif")):
        with Image.open(file) as image:
            assert image.n_frames <= 2 and image.width > 8
    assert len([*folder.glob("s/videos/*.gif")]) == 3 and [*folder.glob("samples/training-*.gif")]
    assert "video" in invoke("score", "nll", str(folder), "--plans", "raster,blocks:2x2x2,random", "-n", "8")
    assert [*folder.glob("scores/*.png")]
    refused = CliRunner().invoke(app, ["sample", str(folder), "--image", str(folder / "s" / "grid.gif")])
    assert "need examples of kind image" in str(refused.exception)

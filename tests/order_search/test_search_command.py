"""``mar search-order`` on a small run: files, report, resumption, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mar import config, load
from mar.cli.main import app
from mar.core.errors import Stopped, UserError
from mar.order_search import search as searching
from mar.run import train
from orderings import PlanSpec, inverse
from tests import synthetic
from tests.training.conftest import TINY

TREE = f"data.kind={synthetic.__file__}:NoisyTree"
SHORT = ["--partition", "equal:4", "-n", "24", "--test-n", "12", "--minutes", "5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "any"
    train(
        config.read("digits", [*TINY, TREE, "data.n=100", "class_conditional=false"]),
        path,
    )
    return path


def search(folder, *more: str):
    return CliRunner().invoke(app, ["search-order", str(folder), *SHORT, *more], catch_exceptions=False)


def test_the_order_is_written_drawn_tested_and_found_by_other_commands(folder):
    done = search(folder, "--evaluations", "15", "--start", "raster,hilbert,lowest-entropy")
    assert done.exit_code == 0 and "15 changes tried" in done.output
    file = folder / "orders" / "searched-equal4.json"
    rank = torch.tensor(json.loads(file.read_text())["ranks"])
    assert rank.shape == (4, 4) and sorted(rank.flatten().tolist()) == list(range(16))
    assert Image.open(file.with_suffix(".png")).size[0] > 500
    result = json.loads(file.with_suffix(".result.json").read_text())
    assert list(result["likelihoods"]) == ["searched", "raster", "random", "hilbert"]
    assert {d["reference"] for d in result["minus_searched"].values()} == {"searched"}
    assert torch.equal(inverse(rank.flatten()), torch.tensor(result["search"]["best"]))
    again = load(folder).nll(plan=result["plan"], limit=12)
    assert again.nats_per_image == pytest.approx(result["likelihoods"]["searched"]["nats_per_image"], rel=1e-6)
    assert again.n_images == 12 and result["likelihoods"]["random"]["plan"] == "random/equal:4"
    paired = result["minus_searched"]["raster"]["nats_per_image"]
    nats = {name: likelihood["nats_per_image"] for name, likelihood in result["likelihoods"].items()}
    assert paired == pytest.approx(nats["raster"] - nats["searched"], abs=1e-6)
    assert str(PlanSpec.parse(result["plan"])) == result["plan"]


def test_an_interrupted_search_keeps_its_order_and_goes_on(folder, monkeypatch):
    race = searching.race

    def interrupted(ledger, changed_L, seed, number):
        if number == 7:
            raise KeyboardInterrupt
        return race(ledger, changed_L, seed, number)

    monkeypatch.setattr(searching, "race", interrupted)
    more = ("--evaluations", "20", "--name", "stopped")
    with pytest.raises(Stopped):
        search(folder, *more)
    monkeypatch.undo()
    file = folder / "orders" / "stopped.json"
    assert sorted(torch.tensor(json.loads(file.read_text())["ranks"]).flatten().tolist()) == list(range(16))
    assert json.loads(file.with_suffix(".search.json").read_text())["proposals"] == 7
    assert "7 changes tried" in search(folder, *more, "--minutes", "0").output
    assert "20 changes tried" in search(folder, *more).output
    with pytest.raises(UserError, match="holds another search \\(seed is 0 there, 1 here\\)"):
        search(folder, *more, "--seed", "1")


def test_what_cannot_be_searched_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="a search starts from one fixed order, not from random"):
        search(folder, "--start", "random", "--name", "none")
    refused = search(folder, "--split", "validatoin")
    assert refused.exit_code == 2 and "'validation'" in refused.output
    train(
        config.read("digits", [*TINY, TREE, "data.n=100", "ordering=raster"]),
        tmp_path / "fixed",
    )
    with pytest.raises(UserError, match="trained along raster alone"):
        search(tmp_path / "fixed")

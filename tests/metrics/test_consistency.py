"""``mar score consistency`` and ``consistency`` of a grid: records, pictures, resuming, refusals, columns."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from mar.core.files import digest
from mar.likelihood.estimate import Repeats
from mar.metrics import METRICS
from mar.metrics.base import Subject, Variant
from mar.run import Run
from orderings import PlanSpec
from tests.cli.test_main import TINY, in_process, refusal
from tests.metrics.test_nll import trained

SMALL = ("-n", "5", "--orders", "3", "--pairs", "4")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("run"))


def score(run: Run, *options: str) -> str:
    return in_process("score", "consistency", str(run.folder.path), *options)


def records(run: Run) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in (run.folder.path / "scores").glob("consistency-*.json")}


def test_the_command_measures_once_and_draws(run):
    said = score(run, *SMALL)
    (name, found), *others = records(run).items()
    assert name == "consistency-random-test-n5-orders3-pairs4-exact.json" and not others
    assert "spread over orders of one image" in said and found["kind"] == "exact" and found["pairs"] == 4
    with Image.open(run.folder.path / "scores" / name.replace(".json", ".png")) as picture:
        assert picture.width > 1000
    assert not (run.folder.path / "scores" / "partial").exists()
    before = digest((run.folder.path / "scores" / name).read_bytes())
    assert "measured before" in score(run, *SMALL)
    assert digest((run.folder.path / "scores" / name).read_bytes()) == before
    score(run, "-n", "5", "--orders", "3", "--pairs", "5")
    assert len(records(run)) == 2, "another question"


def test_json_holds_the_tables_alone(run):
    said = score(run, *SMALL, "--json")
    figures, known, distance = json.loads(said[said.index("{") :]).values()
    assert figures[0]["figure"] == "spread over orders of one image" and figures[0]["value"] > 0.0
    assert len(known) == 4 and set(distance[0]) == {"distance", "rms, nats", "mean, nats"}


def test_the_orders_are_those_of_the_likelihood(run):
    score(run, *SMALL)
    found = records(run)["consistency-random-test-n5-orders3-pairs4-exact.json"]
    nll = run.nll(plan="random", limit=5, repeats=Repeats(orders=3))
    assert 64 * found["nats_per_token"]["value"] == pytest.approx(nll.nats_per_image)
    assert 64 * found["nats_per_token"]["standard_error"] == pytest.approx(nll.standard_error_nats)
    gap = nll.nats_per_image - nll.ensemble[-1].nats_per_image
    assert found["ensemble_gap"]["value"] == pytest.approx(gap, abs=1e-6) and gap > 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--plans raster", "compares random orders, e.g. random, and raster is not one"),
        ("--plans learned", "learned"),
        ("--plans lowest-entropy", "lowest-entropy is not one"),
        ("--plans random/cosine:16", "one token at a time: random/cosine:16 has sets"),
        ("--plans symmetries:raster --orders 9", "a mixture of 8 orders"),
        ("-n 2", "at least 3 images"),
        ("--orders 2", "greater than or equal to 3"),
        ("--kind bound", "no likelihood of kind 'bound': choose exact"),
    ],
)
def test_a_refusal_is_one_line(run, options, said):
    line, code = refusal("score", "consistency", str(run.folder.path), *options.split())
    assert code == 2 and said in line and "\n" not in line


def test_a_grid_asks_along_random_orders_alone():
    metric = METRICS["consistency"](METRICS["consistency"].Options(), {})
    asked = lambda plan, **variant: metric.question(  # noqa: E731
        Subject("recipe", "weights", PlanSpec.parse(plan), Variant(name="a", **variant) if variant else None)
    )
    assert asked("random") == asked("random", guidance=2.0) and asked("random").content["orders"] == 8
    assert not any((asked("raster"), asked("random/cosine:4"), asked("learned"), asked("random", weights="best")))


GRID = f"""
recipe: digits
overrides: [{", ".join(TINY)}, train.sample_every=0, train.validate_every=0, network=made, "network.widths=[8]"]
axes: {{train.iterations: [2, 4]}}
orderings: [raster, random]
nll: {{images: 4}}
fid: null
consistency: {{images: 4, orders: 3, pairs: 2}}
"""


def test_a_grid_has_columns_a_picture_and_a_section(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(GRID)
    in_process("ablate", "grid.yaml", "--out", "out")
    lines = csv.DictReader(Path("out/table.csv").read_text().splitlines())
    rows = {(row["axis_train.iterations"], row["plan"]): row for row in lines}
    assert float(rows["2", "random"]["order_spread_nats_per_token"]) > 0.0
    assert rows["2", "raster"]["order_spread_nats_per_token"] == "" and not rows["4", "random"]["errors"]
    table, page = Path("out/table.md").read_text(), Path("out/index.html").read_text()
    assert "| order spread, nats/token |" in table and "Order consistency on 4 images" in table
    assert '<section id="consistency"><h2>Order consistency</h2>' in page
    assert Path("out/consistency.png").is_file()

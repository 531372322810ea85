"""Variants of one model: ways to generate and to score it, each a row; and mixtures of orders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mar.core.errors import UserError
from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import GridFile, read
from mar.experiments.result import AblationResult, Row
from mar.metrics.fid import FID
from mar.metrics.nll import NLL
from mar.reports.tables import data_table, markdown
from mar.run import load

BASE = """
recipe: digits
overrides: [train.iterations=2, train.batch_size=8, train.validate_every=0, train.sample_every=0,
  network.encoder_depth=1, network.decoder_depth=1]
"""
GRID = """
orderings: [random, raster]
partitions: ["linear:4"]
variants:
  - {name: plain}
  - {name: guided, guidance: 3.0}
  - {name: sharp, options: {top_k: 1}}
  - {name: surest, adaptive: lowest-entropy}
  - {name: confident, adaptive: confidence}
nll: {images: 6, orders: 4}
fid: {images: 12, shown: 4, animated: 2}
"""


def grid_of(folder: Path, text: str) -> GridFile:
    (folder / "grid.yaml").write_text(text)
    return read(str(folder / "grid.yaml"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[AblationResult, Engine]:
    folder = tmp_path_factory.mktemp("variants")
    engine = Engine(grid_of(folder, BASE + GRID), folder / "out")
    engine.work()
    return assemble(engine), engine


def rows(result: AblationResult, **settings: str) -> list[Row]:
    return [row for row in result.rows if all(row.settings[name] == value for name, value in settings.items())]


def test_every_plan_has_a_row_for_each_variant_and_nothing_fails(finished: tuple[AblationResult, Engine]) -> None:
    result, _ = finished
    assert result.settings == ("plan", "variant", "orders")
    counts = Counter((row.settings["plan"], row.settings["variant"]) for row in result.rows)
    along = {(p, v) for p in ("random/linear:4", "raster/linear:4") for v in ("plain", "guided", "sharp")}
    assert set(counts) == along | {("random/linear:4", v) for v in ("surest", "confident")}  # once for all orderings
    assert not any(row.errors for row in result.rows)


def test_a_variant_that_only_generates_shares_the_likelihood_of_its_plan(
    finished: tuple[AblationResult, Engine],
) -> None:
    result, engine = finished
    plain, guided = (rows(result, plan="raster/linear:4", variant=v)[0] for v in ("plain", "guided"))
    assert plain.likelihood == guided.likelihood and plain.images != guided.images
    assert guided.difference is None or guided.difference.reference.endswith("plain, 1")
    asked = [ask for ask in engine.outlines[0].questions if ask.metric == "nll"]
    assert len(asked) == 2 + 1  # of the plans, and of the rule in their sizes


def test_the_rule_s_likelihood_is_its_own_and_of_sampled_values_there_is_none(
    finished: tuple[AblationResult, Engine],
) -> None:
    result, engine = finished
    surest = rows(result, variant="surest")[0]
    run = load(engine.folder(engine.cells[0]).path)
    assert surest.likelihood is not None and surest.plan == "lowest-entropy/linear:4"
    assert surest.likelihood.nats_per_image == run.nll(plan="lowest-entropy/linear:4", limit=6).nats_per_image
    confident = rows(result, variant="confident")
    assert all(row.likelihood is None and row.images is not None for row in confident)


def test_a_random_plan_has_a_row_for_each_mixture_of_its_orders(finished: tuple[AblationResult, Engine]) -> None:
    result, _ = finished
    found = rows(result, plan="random/linear:4", variant="plain")
    assert [row.settings["orders"] for row in found] == ["mean of 4", "1", "2", "4"]
    nats = [row.likelihood.nats_per_image for row in found if row.likelihood is not None]
    assert nats[3] <= nats[0] + 1e-9  # Jensen: a mixture is at most the mean
    assert [row.settings["orders"] for row in rows(result, plan="raster/linear:4", variant="plain")] == ["1"]


def test_a_second_run_repeats_nothing(finished: tuple[AblationResult, Engine], monkeypatch) -> None:
    result, engine = finished

    def refuse(*args, **kwargs):
        raise AssertionError("computed again")

    for metric in (NLL, FID):
        monkeypatch.setattr(metric, "compute", refuse)
    again = Engine(engine.grid, engine.out)
    again.work()
    assert assemble(again).rows == result.rows


def test_the_tables_show_variants_and_orders(finished: tuple[AblationResult, Engine]) -> None:
    result, _ = finished
    assert "| variant | orders | ordering | partition |" in markdown(result)
    assert "axis_variant,axis_orders" in data_table(result).csv().splitlines()[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("variants: [{name: a}, {name: a}]", "two variants are called 'a'"),
        ("variants: [{name: a, adaptive: lowest}]", "lowest-entropy"),
        ("variants: [{name: a}]\nreference: {variant: b}", "reference on the axis variant"),
        ("variants: [{name: a, guide: 2}]", "variants"),
    ],
)
def test_a_wrong_variant_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        grid_of(tmp_path, BASE + "orderings: [raster]\n" + text)


def test_a_grid_extends_another_and_is_given_values(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(BASE + "orderings: [raster]\nnll: {images: 6}\n")
    child = (
        f"extends: {tmp_path / 'parent.yaml'}\ngiven: {{data: '???'}}\nprepare: ['cache ${{given.data}}']\nfid: null\n"
    )
    (tmp_path / "child.yaml").write_text(child)
    grid = read(str(tmp_path / "child.yaml"), ["given.data=here"])
    assert (grid.prepare, grid.fid, grid.orderings) == (("cache here",), None, ("raster",))
    with pytest.raises(UserError, match=r"needs given\.data="):
        read(str(tmp_path / "child.yaml"))


def test_a_model_is_scored_along_its_own_order_in_the_grid_s_sets(tmp_path: Path) -> None:
    text = (
        BASE + 'axes: {ordering: [raster, random]}\npartitions: ["linear:2", "linear:4"]\nfid: null\nnll: {images: 6}\n'
    )
    grid = grid_of(tmp_path, text + "reference: {ordering: raster}\n")
    engine = Engine(grid, tmp_path)
    engine.work()
    result = assemble(engine)
    assert [row.plan for row in result.rows] == [f"{o}/linear:{k}" for o in ("raster", "random") for k in (2, 4)]
    assert result.settings == ("ordering", "partition")
    assert [row.difference and row.difference.reference for row in result.rows] == [
        None, None, "raster, linear:2", "raster, linear:4"
    ]  # fmt: skip


def test_the_best_and_the_last_weights_of_one_model_are_rows(tmp_path: Path) -> None:
    keeps = "validate_every=1, train.keep_best=true, train.learning_rate=0.3, train.schedule.warmup=0"
    variants = "[{name: last, weights: last}, {name: best, weights: best}]"
    text = f"orderings: [raster]\nvariants: {variants}\nnll: {{images: 6}}\nfid: null"
    engine = Engine(grid_of(tmp_path, BASE.replace("validate_every=0", keeps) + text), tmp_path / "out")
    engine.prepare()
    engine.work()
    assert [state.kind for state in engine.states()] == ["done"]
    last, best = assemble(engine).rows
    run = engine.folder(engine.cells[0]).path
    for row, which in ((last, "last"), (best, "best")):
        assert row.settings["variant"] == which
        scored = load(run, weights=which).nll(plan="raster", limit=6).nats_per_image
        assert row.answers["nll"].nats_per_image == scored
    assert load(run, weights="best").checkpoint.iteration == 1
    assert last.answers["nll"].nats_per_image != best.answers["nll"].nats_per_image

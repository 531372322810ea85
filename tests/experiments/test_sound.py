"""Rows that prove nothing are shown and not compared: worse than a baseline, or of a model that still falls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import Published, read
from mar.experiments.result import AblationResult, Row, Training
from mar.experiments.statistics import Agreement, agreement, agreements, judged
from mar.reports.tables import grid_table, markdown, notes_of
from tests.experiments.made import generated, made, row, scored

ORDERS = ("raster", "spiral", "hilbert", "random")
BASELINE = replace(row({}, likelihood=scored([30.0, 32.0])), plan="independent tokens, by class")


def training(*nats: float) -> Training:
    steps = tuple(range(1, 1 + len(nats)))
    return Training(len(nats), 10, len(nats), 1.0, (), (), steps, nats)


@pytest.mark.parametrize(
    ("nats", "curve", "reason"),
    [
        ((30.0, 31.0), (), ""),
        ((31.0, 32.0), (), "worse than independent tokens, by class"),
        ((30.0, 31.0), (3.0, 2.0, 1.9, 1.5), "its validation loss is still falling"),
        ((30.0, 31.0), (3.0, 2.0, 1.5, 1.5), ""),
        ((31.0, 32.0, 33.0), (), ""),  # other images than the baseline's
    ],
)
def test_a_row_is_judged_by_its_baseline_and_its_curve(
    nats: tuple[float, ...], curve: tuple[float, ...], reason: str
) -> None:
    assert judged(row({}, likelihood=scored(nats)), training(*curve), [BASELINE]).unsound == reason


def table(*unsound: str) -> AblationResult:
    """FIDs 2, 3, 4, 5 of four orders, the first of them the best."""
    rows = [row({"ordering": name}, images=generated(2.0 + k)) for k, name in enumerate(ORDERS)]
    return made([replace(each, unsound="bad" if each.settings["ordering"] in unsound else "") for each in rows])


def column(**keys: object) -> Published:
    rows = [{"where": {"ordering": name}, "value": value} for name, value in zip(ORDERS, (9, 1, 2, 3), strict=True)]
    return Published.model_validate({"title": "t", "of": "fid", "source": "a paper", "rows": rows} | keys)


def test_an_unsound_row_is_neither_best_nor_ranked_and_says_why() -> None:
    shown = grid_table(table("raster"))
    (fid,) = (each for each in shown.columns if each.title == "FID")
    assert fid.best(shown.rows) == {1} and fid.best(grid_table(table()).rows) == {0}
    assert agreement(table("raster"), column()) == Agreement(3, 1.0, pytest.approx(1 / 3), exact=True)
    assert agreement(table(), column()).tau == pytest.approx(0.0)
    assert "not compared: bad" in markdown(table("raster"))
    assert any("1 row: bad" in note for note in notes_of(table("raster")))
    assert not any("Not compared" in note for note in notes_of(table()))


def test_tau_is_of_rows_of_one_condition() -> None:
    """Guidance improves every row by far: pooled, the ranks of orders would hide behind it."""
    variants = [{"name": "plain", "guidance": 1.0}, {"name": "guided", "guidance": 3.0}]
    rows = [
        row({"ordering": name, "variant": each["name"]}, images=generated(fid / each["guidance"]))
        for each in variants
        for name, fid in zip(ORDERS, (1.0, 2.0, 3.0, 4.0), strict=True)
    ]
    result = made(rows, variants=variants)
    theirs = column(rows=[{"where": {"ordering": n}, "value": 9 - k} for k, n in enumerate(ORDERS)])
    found = agreements(result, theirs)
    assert {name: (each.n, each.tau) for name, each in found.items()} == {
        "singles, guidance 1": (4, -1.0), "singles, guidance 3": (4, -1.0)
    }  # fmt: skip
    assert agreements(table(), column()) == {"": agreement(table(), column())}
    checkpoints = tuple({"name": name, "weights": name} for name in ("best", "last"))
    by_weights = made([replace(one, settings={**one.settings, "variant": each["name"]})
                       for each in checkpoints for one in rows[:4]], variants=checkpoints)  # fmt: skip
    assert [each.n for each in agreements(by_weights, theirs).values()] == [4, 4]  # two checkpoints are no two models


def test_a_grid_compares_every_row_unless_it_asks_for_sound_ones(tmp_path: Path) -> None:
    text = """
recipe: digits
overrides: [train.iterations=1, train.batch_size=4, train.validate_every=0, train.sample_every=0,
  network=made, "network.widths=[4]", train.objective=next_set]
axes: {ordering: [raster, spiral]}
nll: {images: 8}
fid: null
"""
    (tmp_path / "grid.yaml").write_text(text)
    engine = Engine(read(str(tmp_path / "grid.yaml")), tmp_path / "out")
    engine.work()
    assert [each.difference is None for each in assemble(engine).rows] == [True, False]
    sound = assemble(Engine(read(str(tmp_path / "grid.yaml"), ["compare=sound"]), tmp_path / "out"))
    reasons = {each.unsound for each in sound.rows}
    assert all(each.difference is None for each in sound.rows) and reasons == {
        "worse than independent tokens, by class"
    }
    loaded: Row = sound.rows[0]
    sound.save(tmp_path / "result.json")
    assert AblationResult.load(tmp_path / "result.json").rows[0].unsound == loaded.unsound

"""A tiny grid of recipes: trained once each, refused by name, taken up by any number of processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mar.experiments.engine as engine_module
from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import GridFile, read
from mar.experiments.result import AblationResult
from mar.experiments.state import OUTLINE, read_outlines, share

GRID = """
recipe: digits
overrides: [train.iterations=6, train.batch_size=8, train.validate_every=2, train.validation_examples=8,
  train.sample_every=0, class_conditional=false, train.mask_ratio=plan, ordering=raster]
axes:
  network:
    - {network: {kind: made, widths: [8]}}
    - {network: {kind: row-lstm, width: 8, depth: 1}}
  ordering: [raster, random]
select: best
reference: {ordering: raster}
nll: {images: 12}
fid: null
speed: {batch: 2, seconds: 0, clock: cpu}
probe: {}
"""


def grid_in(folder: Path, text: str = GRID) -> GridFile:
    (folder / "cells.yaml").write_text(text)
    return read(str(folder / "cells.yaml"))


def run(engine: Engine) -> AblationResult:
    engine.prepare()
    engine.work()
    engine.measure_alone()
    return assemble(engine)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[AblationResult, Engine]:
    folder = tmp_path_factory.mktemp("cells")
    engine = Engine(grid_in(folder), folder / "out")
    return run(engine), engine


def test_every_cell_has_a_model_its_figures_and_a_difference(finished: tuple[AblationResult, Engine]) -> None:
    result, _ = finished
    assert [row.name for row in result.rows] == ["made, raster", "made, random", "row-lstm, raster", "row-lstm, random"]
    for row in result.rows[:3]:
        model = result.model_of(row)
        assert row.likelihood is not None and row.probe is not None and row.errors == ()
        assert model is not None and model.speed is not None and model.speed.train_flops_per_image > 0
        assert model.training is not None and model.training.validation_iteration == (2, 4, 6)
    assert result.rows[1].difference is not None and result.rows[1].difference.reference == "made, raster"
    assert result.rows[0].difference is None and result.rows[2].difference is None


def test_a_cell_whose_network_refuses_the_plan_is_listed_with_the_reason(
    finished: tuple[AblationResult, Engine],
) -> None:
    result, engine = finished
    assert "raster order" in result.rows[3].refused and result.rows[3].likelihood is None
    assert [state.kind for state in engine.states()] == ["done"] * 3 + ["refused"]
    assert share(engine.states()) == 1.0
    outlines = read_outlines(engine.out)
    assert outlines == engine.outlines and [each.state(engine.out) for each in outlines] == engine.states()


def test_outlines_without_plans_are_read(finished: tuple[AblationResult, Engine], tmp_path: Path) -> None:
    _, engine = finished
    plain = json.loads((engine.out / OUTLINE).read_text())
    for question in (each for outline in plain for each in outline["questions"]):
        del question["plan"], question["variant"]
    (tmp_path / OUTLINE).write_text(json.dumps(plain))
    assert [each.state(engine.out) for each in read_outlines(tmp_path) or ()] == engine.states()


def test_the_state_says_what_is_left(finished: tuple[AblationResult, Engine], tmp_path: Path) -> None:
    _, engine = finished
    fresh = Engine(engine.grid, tmp_path)
    assert [state.kind for state in fresh.states()] == ["waiting"] * 3 + ["refused"] and share(fresh.states()) == 0.0
    cell = engine.cells[0]
    shutil.copytree(engine.home(cell), fresh.home(cell))
    (fresh.home(cell) / "speed.json").unlink()
    assert fresh.states()[0].kind == "speed"
    (fresh.home(cell) / "probe.json").unlink()
    assert fresh.states()[0].text == "1 of 3 evaluations"
    (fresh.home(cell) / "training.json").unlink()
    shutil.copytree(engine.folder(cell).path, fresh.folder(cell).path)
    assert fresh.states()[0].text == "6 of 6 iterations"


def test_the_scored_weights_are_those_of_the_lowest_validation_loss(finished: tuple[AblationResult, Engine]) -> None:
    result, engine = finished
    for cell, model in zip(engine.cells[:3], result.models, strict=False):
        assert model.training is not None
        losses = dict(zip(model.training.validation_iteration, model.training.validation_nats, strict=True))
        assert losses[model.training.scored] == min(losses.values())
        kept = {int(path.name) for path in engine.folder(cell).checkpoints.glob("[0-9]*")}
        assert kept == {model.training.scored, 6}


def test_a_result_of_several_models_survives_its_file(finished: tuple[AblationResult, Engine], tmp_path: Path) -> None:
    finished[0].save(tmp_path / "result.json")
    assert AblationResult.load(tmp_path / "result.json") == finished[0]


def test_a_cell_that_fails_in_training_is_recorded_and_the_rest_goes_on(tmp_path: Path, monkeypatch) -> None:
    original = engine_module.train

    def breaks(recipe, folder, **options):
        if recipe.network.kind == "made":
            raise RuntimeError("out of\nmemory")
        original(recipe, folder, **options)

    monkeypatch.setattr(engine_module, "train", breaks)
    engine = Engine(grid_in(tmp_path).model_copy(update={"probe": None, "speed": None}), tmp_path)
    rows = run(engine).rows
    assert [row.errors for row in rows] == [("training: RuntimeError: out of memory",)] * 2 + [(), ()]
    assert [state.kind for state in engine.states()] == ["failed", "failed", "done", "refused"]


def test_cells_may_learn_different_data_and_are_compared_within_each(tmp_path: Path) -> None:
    grid = grid_in(tmp_path, """
recipe: digits
overrides: [train.iterations=1, train.batch_size=4, train.validate_every=0, train.sample_every=0,
  class_conditional=false, network.kind=made, "network.widths=[4]", train.mask_ratio=plan]
axes: {data.validation: [72, 100], seed: [0, 1]}
nll: {images: 8}
fid: null
reference: {seed: 0}
""")  # fmt: skip
    result = run(Engine(grid, tmp_path))
    assert len({cell.data.fingerprint for cell in Engine(grid, tmp_path).cells}) == 2
    assert [row.difference and row.difference.reference for row in result.rows] == [None, "72, 0", None, "100, 0"]
    assert [row.plan.split(" of ")[0] for row in result.baselines] == ["independent tokens"] * 2
    assert ", " in result.data_fingerprint


def test_images_of_different_data_are_not_paired(tmp_path: Path) -> None:
    """One reference for all, as many test images, one kind of likelihood: the other split is another data set still."""
    grid = grid_in(tmp_path, """
recipe: digits
overrides: [train.iterations=1, train.batch_size=4, train.validate_every=0, train.sample_every=0]
axes: {data.validation: [72, 100]}
orderings: [raster]
partitions: ["linear:2"]
reference: {data.validation: 72}
nll: {images: 8}
fid: null
""")  # fmt: skip
    result = run(Engine(grid, tmp_path))
    assert all(row.likelihood is not None for row in result.rows)
    assert [row.difference for row in result.rows] == [None, None]


def test_without_a_reference_rows_are_compared_within_their_seed(tmp_path: Path) -> None:
    text = GRID.replace("reference: {ordering: raster}", "").replace("axes:", "axes:\n  seed: [0, 1]")
    assert grid_in(tmp_path, text).reference == {"network": "made", "ordering": "raster"}


def _ablate(folder: Path) -> subprocess.Popen[str]:
    arguments = ["ablate", str(folder / "cells.yaml"), "--workers", "2", "--out", str(folder / "out")]
    return subprocess.Popen(
        [sys.executable, "-m", "mar", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_that_are_stopped_end_with_the_table_of_an_uninterrupted_grid(
    finished: tuple[AblationResult, Engine], tmp_path: Path, number: int
) -> None:
    grid_in(tmp_path)
    first = _ablate(tmp_path)
    while not list((tmp_path / "out").glob("runs/*/checkpoints/*")):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(number)
    first.communicate(timeout=120)
    assert first.returncode == (-number if number == signal.SIGKILL else 128 + number)
    second = _ablate(tmp_path)
    said = second.communicate(timeout=300)[0]
    assert second.returncode == 0, said
    result = AblationResult.load(tmp_path / "out" / "result.json")

    def figures(found: AblationResult) -> list:
        return [(row.name, row.likelihood, row.probe, row.difference) for row in found.rows]

    assert figures(result) == figures(finished[0])
    assert [model.weights for model in result.models] == [model.weights for model in finished[0].models]

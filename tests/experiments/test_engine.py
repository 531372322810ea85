"""A tiny ablation from grid to result: nothing is repeated, failures are recorded, killing it changes nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mar.experiments.engine as engine_module
import mar.metrics.fid as fid_module
import mar.metrics.nll as nll_module
from mar.core.errors import Unsupported, UserError
from mar.core.files import held
from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import GridFile, read
from mar.experiments.result import AblationResult
from mar.experiments.state import forget_failures
from tests.experiments.made import changed

RESULTS = Path(__file__).parents[2] / "results"
GRID = """
recipe: digits
overrides:
  - train.iterations=4
  - train.batch_size=8
  - train.validate_every=2
  - train.validation_examples=8
  - train.sample_every=0
  - network.encoder_depth=1
  - network.decoder_depth=1
orderings: [raster, random]
partitions: ["linear:4", "cosine:2"]
nll: {images: 12}
fid: {images: 12, shown: 4, animated: 2}
"""
PLANS = ["raster/linear:4", "random/linear:4", "raster/cosine:2", "random/cosine:2"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> GridFile:
    path = tmp_path_factory.mktemp("grid") / "tiny.yaml"
    path.write_text(GRID)
    return read(str(path))


@pytest.fixture(scope="module")
def finished(grid: GridFile, tmp_path_factory: pytest.TempPathFactory) -> tuple[AblationResult, Path]:
    """The result and its folder. Tests that change the folder take the grid and a folder of their own."""
    folder = tmp_path_factory.mktemp("ablation")
    return run(Engine(grid, folder)), folder


def run(engine: Engine, retry_failed: bool = False) -> AblationResult:
    if retry_failed:
        forget_failures(engine.out, engine.outlines)
    engine.work()
    engine.measure_alone()
    return assemble(engine)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the costly functions are called, under the names of what they do."""
    count: Counter[str] = Counter()

    def counted(module: object, name: str, does: str) -> None:
        original = getattr(module, name)

        def call(*args, **kwargs):
            count[does] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    counted(engine_module, "train", "train")
    counted(nll_module.NLL, "compute", "score_nll")
    counted(fid_module, "sample_images", "sample_images")
    counted(fid_module.FidScorer, "score", "score_images")
    return count


def without_clocks(result: AblationResult) -> AblationResult:
    """The result without what two machines or moments may differ in."""
    rows = tuple(
        changed(replace(row, seconds={}), sampling_seconds=None, sampling_cpu_seconds=None) for row in result.rows
    )
    models = tuple(
        replace(model, answers={}, training=replace(model.training, seconds=0.0)) if model.training else model
        for model in result.models
    )
    return replace(result, rows=rows, seconds=0.0, environment={}, models=models)


def test_every_plan_is_scored_sampled_and_compared(finished: tuple[AblationResult, Path]) -> None:
    result, folder = finished
    assert [row.plan for row in result.rows] == PLANS
    for row in result.rows:
        assert row.errors == ()
        assert row.likelihood is not None and row.likelihood.n_images == 12
        assert row.images is not None and row.images.generated.n_images == 12
        assert row.samples is not None and (folder / row.samples).is_file()
        assert row.animation is not None and (folder / row.animation).is_file()
        assert (row.difference is None) == (row.plan == "raster/linear:4")
    (model,) = result.models
    assert model.training is not None and model.training.validation_iteration == (2, 4)


def test_a_result_survives_its_file(finished: tuple[AblationResult, Path], tmp_path: Path) -> None:
    result, _ = finished
    result.save(tmp_path / "result.json")
    assert AblationResult.load(tmp_path / "result.json") == result


def test_a_second_run_repeats_nothing(
    grid: GridFile, finished: tuple[AblationResult, Path], calls: Counter[str]
) -> None:
    result, folder = finished
    again = run(Engine(grid, folder))
    assert not calls
    assert without_clocks(again) == without_clocks(result)


def test_an_interrupted_run_goes_on_where_it_stopped(
    grid: GridFile, finished: tuple[AblationResult, Path], calls: Counter[str], tmp_path: Path, monkeypatch
) -> None:
    scoring, stopped = fid_module.FidScorer.score, []

    def stops_once(*args, **kwargs):
        if calls["score_images"] == 1 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        return scoring(*args, **kwargs)

    monkeypatch.setattr(fid_module.FidScorer, "score", stops_once)
    shutil.copytree(finished[1] / "features", tmp_path / "features")  # spares the training of a classifier
    with pytest.raises(KeyboardInterrupt):
        Engine(grid, tmp_path).work()
    assert calls == {"train": 1, "score_nll": 2, "sample_images": 2, "score_images": 1}
    result = run(Engine(grid, tmp_path))
    assert calls == {
        "train": 1,
        "score_nll": 4,
        "sample_images": 5,
        "score_images": 4,
    }  # only what was under way, again
    assert without_clocks(result) == without_clocks(finished[0])


def test_a_failed_plan_is_recorded_and_the_rest_goes_on(
    grid: GridFile, calls: Counter[str], tmp_path: Path, monkeypatch
) -> None:
    counted, broken = nll_module.NLL.compute, ["random/linear:4"]

    def breaks(metric, question, at):
        if question.plan in broken:
            raise RuntimeError("out of\nmemory")
        return counted(metric, question, at)

    monkeypatch.setattr(nll_module.NLL, "compute", breaks)
    grid = grid.model_copy(update={"fid": None})
    rows = run(Engine(grid, tmp_path)).rows
    assert [row.errors for row in rows] == [(), ("NLL: RuntimeError: out of memory",), (), ()]
    assert rows[1].likelihood is None and rows[3].difference is not None
    broken.clear()
    run(Engine(grid, tmp_path))
    assert calls["score_nll"] == 3  # known to fail: left alone unless asked
    assert run(Engine(grid, tmp_path), retry_failed=True).rows[1].errors == ()
    assert calls["score_nll"] == 4


def test_a_changed_question_is_answered_anew_and_nothing_else_is(
    grid: GridFile, finished: tuple[AblationResult, Path], calls: Counter[str], tmp_path: Path
) -> None:
    assert grid.nll is not None
    changed = grid.model_copy(update={"nll": grid.nll.model_copy(update={"images": 8}), "fid": None})
    run(Engine(grid.model_copy(update={"fid": None}), tmp_path))
    calls.clear()
    result = run(Engine(changed, tmp_path))
    assert calls == {"score_nll": 4}
    assert [row.likelihood.n_images for row in result.rows if row.likelihood] == [8] * 4


def test_what_was_trained_on_other_data_is_not_reported_as_of_these(
    finished: tuple[AblationResult, Path], grid: GridFile, tmp_path: Path
) -> None:
    shutil.copytree(finished[1], tmp_path / "out")
    (file,) = (tmp_path / "out" / "runs").glob("*/data.json")
    file.write_text(file.read_text().replace(finished[0].data_fingerprint, "f" * 64))
    with pytest.raises(UserError, match=r"the data of .*runs/.* have changed since .*another --out"):
        Engine(grid, tmp_path / "out")


def test_a_plan_of_a_long_name_has_a_folder(grid: GridFile, tmp_path: Path) -> None:
    engine = Engine(grid, tmp_path)
    plans = [f"raster/sizes:{','.join(['1'] * n)},{784 - n}" for n in (300, 301)]
    folders = [engine.plan_folder(engine.cells[0], plan, "ü" * 90) for plan in plans]
    for folder in folders:
        folder.mkdir(parents=True)  # fails if it is there already, or the system does not take its name


def test_an_impossible_plan_is_refused_before_training(grid: GridFile, calls: Counter[str], tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="65"):
        Engine(grid.model_copy(update={"partitions": ("linear:65",)}), tmp_path)
    assert not calls and not list(tmp_path.iterdir())


def test_two_engines_never_work_on_one_cell(grid: GridFile, calls: Counter[str], tmp_path: Path) -> None:
    engine = Engine(grid, tmp_path)
    with held(engine.home(engine.cells[0]), wait=False) as mine:
        assert mine
        engine.work()
    assert not calls
    engine.work()
    assert calls["train"] == 1


def test_the_animation_shows_what_is_not_yet_known(finished: tuple[AblationResult, Path]) -> None:
    from PIL import Image

    result, folder = finished
    assert result.rows[0].animation is not None
    with Image.open(folder / result.rows[0].animation) as film:
        shares = []
        for frame in range(film.n_frames):
            film.seek(frame)
            red, _, blue = np.asarray(film.convert("RGB")).astype(int).transpose(2, 0, 1)
            shares.append((blue > red + 40).mean())
    assert shares[0] > 0.5 > shares[1] > shares[-1] == 0.0


def test_the_command_writes_table_and_page(finished: tuple[AblationResult, Path], capsys, monkeypatch) -> None:
    from mar.cli.ablate import ablate

    _, folder = finished
    (folder / "tiny.yaml").write_text(GRID)
    ablate(name=str(folder / "tiny.yaml"), out=folder, workers=1)
    printed = capsys.readouterr().out
    for name in ("table.md", "table.csv", "index.html"):
        assert (folder / name).is_file() and name in printed.replace("\n", "")
    assert json.loads((folder / "result.json").read_text())["name"] == "tiny"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("orderings=[rastr]", "did you mean 'raster'"),
        ("refrence=raster", "did you mean 'reference'"),
        ("fid.imgs=9", "did you mean 'fid.images'"),
        ("reference=morton", "axis plan"),
        ("train.iteration=9", "did you mean 'train.iterations'"),
    ],
)
def test_a_wrong_grid_is_refused_with_what_would_work(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read("digits", [override])


def test_shipped_grids_have_the_promised_size() -> None:
    grid = read("digits")
    assert len(grid.orderings) >= 8 and len(grid.partitions) == 2
    assert len(grid.plans()) == len(grid.orderings) * len(grid.partitions)


def test_a_dry_run_lists_the_plans_and_touches_nothing(
    calls: Counter[str], tmp_path: Path, capsys, monkeypatch
) -> None:
    from mar.cli.ablate import ablate

    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "tiny.yaml").write_text(GRID)
    ablate(name=str(tmp_path / "tiny.yaml"), out=tmp_path / "out", workers=1, dry_run=True)
    printed = capsys.readouterr().out
    assert "4 plans" in printed and "waiting" in printed and "220,241" not in printed
    names = "axes: {seed: [{name: 'a[/b]', seed: 0}, {name: '[red]x', seed: 1}]}"
    (tmp_path / "tiny.yaml").write_text(GRID.replace("orderings: [raster, random]", "orderings: [raster]") + names)
    ablate(name=str(tmp_path / "tiny.yaml"), out=tmp_path / "out", workers=1, dry_run=True)
    printed = capsys.readouterr().out
    assert "a[/b]" in printed and "[red]x" in printed and "raster/linear:4, raster/cosine:2" in printed
    assert not calls and not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", sorted(RESULTS.glob("**/result.json*")), ids=lambda file: str(file.parent.name))
def test_a_result_of_an_earlier_layout_loads(file: Path) -> None:
    result = AblationResult.load(file)
    assert any(row.likelihood or row.images for row in result.rows)
    assert all(row.answers or row.refused or row.errors for row in result.rows)
